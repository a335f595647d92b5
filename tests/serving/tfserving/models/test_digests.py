"""Only the files that were exported go live."""

import json
import shutil
import time

import httpx
import numpy as np
import pytest

from models.keras import tf
from preprocessing.errors import UserError
from serving import embedded_server
from serving.parity import parity
from serving.tfserving.models import digests
from serving.tfserving.models.servable import Servable
from serving.tfserving.status import Code, ServingError
from tests.helpers import toy_runs

VOCABULARY = "assets/item_id.txt"


def lines(path):
    return path.read_text().split("\n")[:-1]


def _write(path, words):
    path.write_text("".join(f"{word}\n" for word in words))


def truncate(version):
    _write(version / VOCABULARY, lines(version / VOCABULARY)[:10])


def extend(version):
    _write(version / VOCABULARY, [*lines(version / VOCABULARY), "item 20 é"])


def replace(version):
    """Another vocabulary of the same length, which TensorFlow cannot tell from this one."""
    _write(version / VOCABULARY, lines(version / VOCABULARY)[::-1])


def remove(version):
    (version / VOCABULARY).unlink()


def describe(version):
    """Another schema of the same hash."""
    schema = json.loads((version / "assets/schema.json").read_text())
    schema["features"][0]["description"] = "somebody"
    (version / "assets/schema.json").write_text(json.dumps(schema))


def change_weights(version):
    path = version / "variables" / "variables.data-00000-of-00001"
    *others, last = path.read_bytes()
    path.write_bytes(bytes([*others, last ^ 1]))


DAMAGES = [
    (truncate, VOCABULARY),
    (extend, VOCABULARY),
    (replace, VOCABULARY),
    (remove, VOCABULARY),
    (describe, "assets/schema.json"),
    (change_weights, "variables/variables.data-00000-of-00001"),
]


@pytest.fixture
def copied(toy_version, tmp_path):
    return shutil.copytree(toy_version, tmp_path / "copied" / "1")


@pytest.mark.parametrize(
    ("damage", "file"), DAMAGES, ids=lambda value: getattr(value, "__name__", "")
)
def test_version_with_a_damaged_file_does_not_load(damage, file, copied, toy_run):
    damage(copied)
    with pytest.raises(
        ServingError, match=f"Expected (the )?{file} .*: copy the version"
    ) as caught:
        Servable(copied)
    assert caught.value.code is Code.DATA_LOSS
    with pytest.raises(UserError, match=f"version that loads, found: Expected (the )?{file} "):
        parity(toy_run, copied)


def test_damaged_version_ends_and_the_old_one_answers(toy_version, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(toy_version, base / "1")
    with embedded_server.running(base, "ctr", file_system_poll_wait_seconds=0.05) as running:
        damaged = shutil.copytree(toy_version, tmp_path / "2")
        truncate(damaged)
        damaged.rename(base / "2")
        deadline = time.monotonic() + 60
        newest = {"state": "LOADING"}
        while newest["state"] in ("START", "LOADING") and time.monotonic() < deadline:
            statuses = httpx.get(running.url).json()["model_version_status"]
            newest = statuses[0] if statuses[0]["version"] == "2" else newest
            time.sleep(0.05)
        assert (newest["state"], statuses[1]["state"]) == ("END", "AVAILABLE")
        assert newest["status"]["error_code"] == "DATA_LOSS"
        assert (
            "Expected the assets/item_id.txt that was exported" in newest["status"]["error_message"]
        )


def test_every_file_that_decides_on_scores_has_a_digest(toy_version):
    found = set(json.loads((toy_version / digests.DIGESTS).read_text()))
    files = {str(p.relative_to(toy_version)) for p in toy_version.rglob("*") if p.is_file()}
    others = {str(digests.DIGESTS), "fingerprint.pb", "assets.extra/tf_serving_warmup_requests"}
    assert found == files - others


@pytest.mark.parametrize("text", ["", "[1]", "3", '{"assets/item_id.txt"}'])
def test_digests_that_are_none_are_refused(copied, text):
    (copied / digests.DIGESTS).write_text(text)
    with pytest.raises(ServingError, match="Expected the digests of a version in .*digests.json"):
        digests.check(copied)


def test_version_of_before_there_were_digests_loads_with_a_warning(copied, caplog):
    (copied / digests.DIGESTS).unlink()
    digests.check(copied)
    assert "has no assets/digests.json" in caplog.text


def scores_of_tensorflow(version):
    """As the official server does it: in a session of its own, without what ours checks."""
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(version))
        signature = loaded.signature_def["serving_default"]
        raw = toy_runs.raw_inputs(4)
        feeds = {signature.inputs[name].name: value for name, value in raw.items()}
        return session.run(signature.outputs["scores"].name, feeds)


def test_tensorflow_itself_refuses_a_vocabulary_that_lost_lines(copied):
    truncate(copied)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Invalid vocab_size .*: expected 20"):
        scores_of_tensorflow(copied)


def test_lines_added_to_a_vocabulary_do_not_move_scores_in_tensorflow(copied):
    before = scores_of_tensorflow(copied)
    extend(copied)
    np.testing.assert_array_equal(scores_of_tensorflow(copied), before)
