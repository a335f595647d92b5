"""The doctor: finds this environment well, and names what is wrong with others and the fix."""

import importlib.metadata
import pathlib
import subprocess
import types

import pytest

from models import doctor
from models.keras import tf
from models.training import memory


@pytest.mark.slow
def test_finds_this_environment_well(capsys):
    assert doctor.check_all() == 0
    out = capsys.readouterr().out
    for name in doctor.CHECKS:
        assert f"ok     {name}" in out
    assert "tensorflow               2." in out


def test_names_what_is_missing_and_the_fix(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_PACKAGES", ("no-such-package",))
    monkeypatch.setattr(
        doctor, "CHECKS", {"keras": lambda: doctor.Finding(False, "Keras 3", "reinstall")}
    )
    assert doctor.check_all() == 1
    out = capsys.readouterr().out
    assert "no-such-package          0 (not installed)" in out
    assert "NOT OK keras             Keras 3 Fix: reinstall." in out


def test_the_other_keras_is_found(monkeypatch):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")
    finding = doctor.check_keras()
    assert not finding.well
    assert "TF_USE_LEGACY_KERAS=0 chooses Keras 3" in finding.found
    assert finding.fix == "unset TF_USE_LEGACY_KERAS"


def test_versions_that_nobody_asked_for_are_found(monkeypatch):
    wanted = ["numpy<1", "no-such-package>=2", "pyarrow>=1", "pandas<1; python_version < '3'"]
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda name: [*wanted, "tqdm<1; extra == 'x'"]
    )
    finding = doctor.check_versions()
    assert not finding.well
    first, second = finding.found.split("; ")
    assert first == f"numpy {importlib.metadata.version('numpy')} is not <1"
    assert second == "no-such-package 0 (not installed) is not >=2"


def test_an_unused_gpu_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_NVIDIA_DRIVER", tmp_path)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    finding = doctor.check_devices()
    assert not finding.well
    assert "0 GPUs although there is an NVIDIA driver" in finding.found
    assert f"tensorflow[and-cuda]=={tf.__version__}" in finding.fix
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"])
    assert doctor.check_devices().well


@pytest.mark.parametrize(("version", "well"), [("2.17.1", False), ("2.21.0", True)])
def test_operations_that_do_not_load_matter_on_the_default_lane(monkeypatch, version, well):
    failed = subprocess.CompletedProcess(
        [], 1, "", "Traceback\nNotImplementedError: undefined symbol"
    )
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    monkeypatch.setattr(doctor, "_version", lambda package: version)
    finding = doctor.check_tensorflow_io()
    assert finding.well is well
    assert "do not load (NotImplementedError: undefined symbol); s3://" in finding.found


def test_slow_checksums_and_messages_are_found(monkeypatch):
    import google_crc32c
    from google.protobuf.internal import api_implementation

    monkeypatch.setattr(google_crc32c, "implementation", "python")
    monkeypatch.setattr(api_implementation, "Type", lambda: "python")
    assert not doctor.check_crc().well
    assert not doctor.check_protobuf().well
    assert "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION" in doctor.check_protobuf().fix


def test_lack_of_room_is_found(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1 << 30)
    monkeypatch.setattr(
        doctor.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1 << 29)
    )
    assert doctor.check_memory() == (False, "1.0 GiB available", doctor.check_memory().fix)
    finding = doctor.check_disk()
    assert not finding.well
    assert finding.found == f"0.5 GiB free in {pathlib.Path.cwd()}"
