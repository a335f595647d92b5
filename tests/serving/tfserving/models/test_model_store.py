import threading

import pytest

from preprocessing.errors import UserError
from serving.tfserving.models import model_config
from serving.tfserving.models.store import ModelStore
from serving.tfserving.status import Code, ServingError


class Loader:
    """Loads nothing: what it serves is the path. Versions named in `broken` fail."""

    def __init__(self):
        self.broken: dict[str, Exception] = {}
        self.calls: list[str] = []

    def __call__(self, path):
        self.calls.append(path.name)
        if path.name in self.broken:
            raise self.broken[path.name]
        return path.name


@pytest.fixture
def loader():
    return Loader()


@pytest.fixture
def base(tmp_path):
    (tmp_path / "1").mkdir()
    return tmp_path


@pytest.fixture
def store(base, loader):
    """A store that serves `base` as m, as soon as it is polled."""
    return serving(base, loader, max_num_load_retries=2, load_retry_interval_seconds=0)


def serving(base, load, **options):
    store = ModelStore(load, **options)
    store._apply(model_config.single("m", base))
    return store


def states(store):
    return {version: state for version, state, _, _ in store.statuses("m")}


def test_V1_latest_version_is_served(base, store):
    (base / "00000012").mkdir()
    for ignored in ("x", ".tmp-13", "-14", "1.5", "9223372036854775808", "٣"):
        (base / ignored).mkdir()
    (base / "99").write_text("a file, not a version")
    store.poll()
    assert store.get("m") == (12, "00000012")
    assert states(store) == {12: "AVAILABLE"}


def test_V3_new_version_replaces_the_old_one(base, store):
    store.poll()
    (base / "2").mkdir()
    store.poll()
    assert store.get("m") == (2, "2")
    assert [version for version, *_ in store.statuses("m")] == [2, 1]
    assert states(store) == {2: "AVAILABLE", 1: "END"}
    with pytest.raises(ServingError, match=r"Servable not found for request: Specific\(m, 1\)"):
        store.get("m", 1)


def test_V3_old_version_serves_until_the_new_one_is_loaded(base):
    seen = []

    def load(path):
        if path.name == "2":
            seen.append((store.get("m"), states(store)))
        return path.name

    store = serving(base, load)
    store.poll()
    (base / "2").mkdir()
    store.poll()
    assert seen == [((1, "1"), {1: "AVAILABLE", 2: "LOADING"})]


def test_V3_removing_the_newest_version_brings_the_older_one_back(base, store):
    (base / "2").mkdir()
    store.poll()
    (base / "2").rmdir()
    store.poll()
    assert store.get("m") == (1, "1")
    assert states(store) == {1: "AVAILABLE", 2: "END"}


def test_V3_removing_all_versions_unloads_the_model(base, store, caplog):
    store.poll()
    (base / "1").rmdir()
    store.poll()
    store.poll()
    with pytest.raises(ServingError, match=r"Latest\(m\)") as caught:
        store.get("m")
    assert caught.value.code is Code.NOT_FOUND
    assert states(store) == {1: "END"}
    assert caplog.text.count("Did you forget to name your leaf directory as a number") == 1


def test_P4_unreadable_base_path_changes_nothing(base, store, caplog):
    store.poll()
    base.rename(base.with_name("gone"))
    store.poll()
    assert store.get("m") == (1, "1")
    assert "Could not find base path" in caplog.text


def test_V5_version_that_does_not_load_ends_and_the_old_one_stays(base, store, loader):
    store.poll()
    (base / "2").mkdir()
    loader.broken["2"] = ServingError(Code.DATA_LOSS, "no good")
    for _ in range(5):
        store.poll()
    assert store.get("m") == (1, "1")
    assert store.statuses("m", 2) == [(2, "END", "DATA_LOSS", "no good")]
    assert loader.calls.count("2") == 3


def test_V5_retry_waits_for_its_interval(base, loader):
    store = serving(base, loader, load_retry_interval_seconds=60)
    loader.broken["1"] = OSError("away")
    store.poll()
    store.poll()
    assert loader.calls == ["1"]
    assert store.statuses("m") == [(1, "END", "UNKNOWN", "OSError: away")]


def test_V5_version_that_returns_is_tried_again(base, store, loader):
    loader.broken["1"] = FileNotFoundError("half copied")
    for _ in range(4):
        store.poll()
    (base / "1").rmdir()
    store.poll()
    assert store.statuses("m") == [(1, "END", "NOT_FOUND", "half copied")]
    (base / "1").mkdir()
    loader.broken.clear()
    store.poll()
    assert store.get("m") == (1, "1")


def test_P5_first_version_that_does_not_load_stops_the_start(base, loader):
    store = ModelStore(loader, max_num_load_retries=2, load_retry_interval_seconds=0)
    loader.broken["1"] = ValueError("bad")
    with pytest.raises(UserError, match=r"1 model\(s\) did not become available.*ValueError: bad"):
        store.start(model_config.single("m", base), 0.001)
    assert len(loader.calls) == 3


def test_P4_start_waits_for_a_first_version(tmp_path, loader):
    store = ModelStore(loader)
    threading.Timer(0.1, lambda: (tmp_path / "later" / "7").mkdir(parents=True)).start()
    store.start(model_config.single("m", tmp_path / "later"), 0.01)
    assert store.get("m") == (7, "7")


def test_V2_polling_in_the_background(base, store):
    store.poll()
    store.start_polling(0.01)
    (base / "2").mkdir()
    for _ in range(1000):
        if store.get("m")[0] == 2:
            break
        threading.Event().wait(0.01)
    store.stop()
    assert states(store) == {1: "END", 2: "END"}


def test_V1_two_names_of_one_version(base, store, caplog):
    (base / "01").mkdir()
    store.poll()
    assert store.get("m") == (1, "1")
    assert "are one version" in caplog.text


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("x", None, "Could not find any versions of model x"),
        ("m", 5, "Could not find version 5 of model m"),
        ("x", 5, "Could not find version 5 of model x"),
    ],
)
def test_E3_status_of_what_is_not_there(store, name, version, message):
    store.poll()
    with pytest.raises(ServingError, match=message):
        store.statuses(name, version)
