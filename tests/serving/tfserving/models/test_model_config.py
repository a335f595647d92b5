"""Section 7 of the contract: the model config file, policies, labels, reloads."""

import pathlib
import threading
import time

import pytest

from preprocessing.errors import UserError
from serving.tfserving.models import model_config
from serving.tfserving.models.store import ModelStore
from serving.tfserving.status import Code, ServingError


def text(*models: str) -> str:
    return "model_config_list {" + "".join(f"config {{ {model} }}" for model in models) + "}"


def entry(name: str, base: pathlib.Path, more: str = "") -> str:
    return f'name: "{name}" base_path: "{base}" model_platform: "tensorflow" {more}'


def config(*models: str):
    return model_config.parse(text(*models))


def specific(*versions: int) -> str:
    listed = " ".join(f"versions: {version}" for version in versions)
    return f"model_version_policy {{ specific {{ {listed} }} }}"


def label(name: str, version: int) -> str:
    return f'version_labels {{ key: "{name}" value: {version} }}'


class Loader:
    """Loads nothing: what it serves is the path. Versions named in `broken` fail."""

    def __init__(self):
        self.broken: set[str] = set()

    def __call__(self, path: pathlib.Path) -> pathlib.Path:
        if path.name in self.broken:
            raise ValueError("broken")
        return path


@pytest.fixture
def loader():
    return Loader()


@pytest.fixture
def store(loader):
    store = ModelStore(loader, max_num_load_retries=0)
    yield store
    store.stop()


@pytest.fixture
def base(tmp_path):
    """A base path with versions 1 to 4."""
    for version in range(1, 5):
        (tmp_path / "a" / str(version)).mkdir(parents=True)
    return tmp_path / "a"


def available(store, name="a"):
    try:
        statuses = store.statuses(name)
    except ServingError:
        return set()
    return {version for version, state, *_ in statuses if state == "AVAILABLE"}


def wait_for(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(
            """model_config_list: { config: { name: 'a', base_path: '/m/a',
            model_platform: 'tensorflow', model_version_policy: { specific: { versions: [3, 4] } },
            version_labels: { key: 'stable', value: 3 }, version_labels: { key: 'canary' value: 4 }
            logging_config: { sampling_config: { sampling_rate: 0.1 } } } }""",
            id="V6-colons-commas-single-quotes",
        ),
        pytest.param(
            """# a comment
            model_config_list {
              config {
                name: "a" base_path: "/m/a" model_platform: "tensorflow"
                model_version_policy { specific { versions: 3 versions: 4 } }
                version_labels { key: "stable" value: 3 }
                version_labels { key: "canary" value: 4 }
              }
            }""",
            id="V6-braces-double-quotes-comment",
        ),
    ],
)
def test_forms_of_the_text(written):
    models = model_config.models(model_config.parse(written))
    assert list(models) == ["a"]
    assert models["a"].base_path == pathlib.Path("/m/a")
    assert models["a"].policy.select([1, 2, 3]) == {3}
    assert models["a"].labels == {"stable": 3, "canary": 4}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        pytest.param("", {4}, id="V2-default-is-the-latest"),
        pytest.param("model_version_policy { latest {} }", {4}, id="V2-latest-0-counts-as-1"),
        pytest.param("model_version_policy { latest { num_versions: 2 } }", {3, 4}, id="V2-latest"),
        pytest.param(
            "model_version_policy { latest { num_versions: 9 } }", {1, 2, 3, 4}, id="V2-latest-more"
        ),
        pytest.param("model_version_policy { all {} }", {1, 2, 3, 4}, id="V2-all"),
        pytest.param(specific(1, 3), {1, 3}, id="V2-specific"),
        pytest.param(specific(2, 7), {2}, id="V2-specific-missing-one-warns"),
    ],
)
def test_version_policies(store, base, caplog, policy, expected):
    store.start(config(entry("a", base, policy)), 0.01)
    assert available(store) == expected
    assert store.get("a")[0] == max(expected)
    assert ("were not found under base path" in caplog.text) == ("7" in policy)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        pytest.param(
            ["name: 'a' base_path: '/m' model_platform: 'tensorflow'"] * 2,
            "Illegal to list model a multiple times in config list",
            id="V7-duplicate",
        ),
        pytest.param(
            ["name: 'a' base_path: 'm' model_platform: 'tensorflow'"],
            "Expected model a to have an absolute path or URI; got base_path()=m",
            id="V7-relative-path",
        ),
        pytest.param(["name: 'a' base_path: '/m'"], "ModelServerConfig::", id="V7-no-platform"),
        pytest.param(
            ["name: 'a' base_path: '/m' model_platform: 'other'"],
            "has the platform 'other'",
            id="V7-other-platform",
        ),
    ],
)
def test_refused_configs_change_nothing(store, base, models, message):
    store.start(config(entry("a", base)), 0.01)
    with pytest.raises(ServingError) as caught:
        store.reload(config(*models))
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert message in caught.value.message
    store.poll()
    assert available(store) == {4}


def test_V6_remote_paths_are_refused(store):
    with pytest.raises(ServingError, match="local directories only"):
        store.reload(config(entry("a", "gs://bucket/m")))


def test_V6_custom_config_is_refused(store):
    with pytest.raises(ServingError, match="found custom_model_config"):
        store.reload(model_config.parse("custom_model_config {}"))


def test_V10_empty_config_does_nothing(store, base):
    store.start(model_config.parse(""), 0.01)
    with pytest.raises(ServingError, match="Model labels does not init yet.") as caught:
        store.get("a", label="stable")
    assert caught.value.code is Code.UNAVAILABLE
    store.reload(config(entry("a", base)))
    store.reload(model_config.parse(""))
    store.poll()
    assert available(store) == {4}


def test_V8_reload_replaces_the_set(store, base, tmp_path):
    (tmp_path / "b" / "9").mkdir(parents=True)
    store.start(config(entry("a", base)), 0.01)
    store.reload(config(entry("b", tmp_path / "b")))
    store.poll()
    assert store.get("b")[0] == 9
    with pytest.raises(ServingError, match=r"Latest\(a\)"):
        store.get("a")
    assert store.statuses("a") == [(4, "END", "OK", "")]
    store.reload(config(entry("a", base), entry("b", tmp_path / "b")))
    assert store.get("a")[0] == 4


def test_V8_reload_waits_for_new_models(store, base, tmp_path):
    late = tmp_path / "late"
    store.start(config(entry("a", base)), 0.01)
    threading.Timer(0.2, lambda: (late / "1").mkdir(parents=True)).start()
    store.reload(config(entry("a", base), entry("late", late)))
    assert store.get("late")[0] == 1


def test_V8_reload_in_limited_time(store, base, tmp_path):
    store.start(config(entry("a", base)), 0.01)
    with pytest.raises(ServingError, match="Still waiting for versions of late") as caught:
        store.reload(config(entry("a", base), entry("late", tmp_path / "late")), 0.1)
    assert caught.value.code is Code.DEADLINE_EXCEEDED


def test_V8_reload_with_a_model_that_does_not_load(store, loader, base, tmp_path):
    (tmp_path / "b" / "9").mkdir(parents=True)
    loader.broken.add("9")
    store.start(config(entry("a", base)), 0.01)
    with pytest.raises(ServingError, match=r"1 model\(s\) did not become available.*b version: 9"):
        store.reload(config(entry("a", base), entry("b", tmp_path / "b")))
    assert available(store) == {4}


def test_V3_newest_broken_version_leaves_the_older_ones(store, loader, base):
    store.start(config(entry("a", base, "model_version_policy { all {} }")), 0.01)
    loader.broken.add("5")
    (base / "5").mkdir()
    store.poll()
    assert store.get("a")[0] == 4
    assert store.statuses("a", 5) == [(5, "END", "UNKNOWN", "ValueError: broken")]


def test_V4_one_unreadable_base_path_stops_the_poll_of_all(store, base, tmp_path, caplog):
    other = tmp_path / "b"
    (other / "1").mkdir(parents=True)
    store.start(config(entry("a", base), entry("b", other)), 0.01)
    (base / "5").mkdir()
    other.rename(tmp_path / "gone")
    store.poll()
    store.poll()
    assert available(store) == {4}
    assert caplog.text.count("Could not find base path") == 1
    (tmp_path / "gone").rename(other)
    store.poll()
    assert available(store) == {5}


def test_V9_label_of_a_version(store, base):
    labels = label("stable", 1) + label("canary", 3)
    store.start(config(entry("a", base, specific(1, 3) + labels)), 0.01)
    assert store.get("a", label="stable")[0] == 1
    assert store.get("a", label="canary")[0] == 3
    for name in ("a", "other"):
        with pytest.raises(ServingError) as caught:
            store.get(name, label="none")
        assert caught.value.code is Code.INVALID_ARGUMENT
        assert caught.value.message == "Unrecognized servable version label: none"


def test_V9_label_of_an_unavailable_version_fails_the_start(store, base):
    message = (
        "Request to assign label to version 1 of model a, which is not currently available for "
        "inference"
    )
    with pytest.raises(UserError, match=message):
        store.start(config(entry("a", base, label("stable", 1))), 0.01)


def test_V9_label_of_an_unavailable_version_fails_the_reload(store, base):
    store.start(config(entry("a", base, label("stable", 4))), 0.01)
    with pytest.raises(ServingError, match="not currently available") as caught:
        store.reload(config(entry("a", base, label("stable", 3))))
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert store.get("a", label="stable")[0] == 4


def test_V9_new_labels_may_be_early_with_the_flag(loader, base):
    store = ModelStore(loader, allow_version_labels_for_unavailable_models=True)
    store.start(config(entry("a", base, label("stable", 4) + label("next", 7))), 0.01)
    with pytest.raises(ServingError, match=r"Specific\(a, 7\)") as caught:
        store.get("a", label="next")
    assert caught.value.code is Code.NOT_FOUND
    with pytest.raises(ServingError, match="assign label to version 7"):
        store.reload(config(entry("a", base, label("stable", 7))))
    assert store.get("a", label="stable")[0] == 4


def test_V9_canary_dance(store, base):
    """Load N + 1, move the label, drop N: the label always names a version that answers."""
    store.start(config(entry("a", base, specific(1) + label("stable", 1))), 0.01)
    store.reload(config(entry("a", base, specific(1, 2) + label("stable", 1))))
    store.poll()
    store.reload(config(entry("a", base, specific(1, 2) + label("stable", 2))))
    assert store.get("a", label="stable")[0] == 2
    store.reload(config(entry("a", base, specific(2) + label("stable", 2))))
    store.poll()
    assert available(store) == {2}


def test_V8_config_file_is_followed(store, base, tmp_path, caplog):
    file = tmp_path / "models.config"
    file.write_text(text(entry("a", base, specific(1) + label("stable", 1))))
    store.start(model_config.read(file), 0.01)
    store.start_polling(0)
    store.follow_config_file(file, 0.02)
    file.write_text("model_config_list { what? }")
    wait_for(lambda: "Reloading" in caplog.text)
    time.sleep(0.1)
    assert caplog.text.count("Reloading") == 1
    assert "Error parsing text-format tensorflow.serving.ModelServerConfig" in caplog.text
    assert store.get("a", label="stable")[0] == 1
    file.write_text(text(entry("a", base, specific(1, 2) + label("stable", 2))))
    wait_for(lambda: store.get("a", label="stable")[0] == 2)


def test_P5_config_file_with_a_mistake_is_one_line(tmp_path):
    file = tmp_path / "models.config"
    with pytest.raises(UserError, match="expected a model config file at"):
        model_config.read(file)
    file.write_text("model_config_list { config { nome: 'a' } }")
    with pytest.raises(UserError, match="Error parsing text-format.*nome"):
        model_config.read(file)


def test_single_model_has_an_absolute_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    models = model_config.models(model_config.single("m", "model"))
    assert models["m"].base_path == tmp_path / "model"
