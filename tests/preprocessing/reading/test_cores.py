"""preprocessing.reading.cores: the cores of the process, and what quotas leave of them."""

import os

import pytest

from preprocessing.reading import cores


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """An empty directory of control groups, and eight cores."""
    monkeypatch.setattr(cores, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    return tmp_path


def test_without_a_quota_the_cores_of_the_process_count(groups):
    assert cores.available() == 8


@pytest.mark.parametrize(
    ("quota", "count"),
    [("max", 8), ("400000", 4), ("150000", 2), ("50000", 1), ("1600000", 8), ("?", 8)],
)
def test_quota_of_a_container(groups, quota, count):
    (groups / "cpu.max").write_text(f"{quota} 100000\n")
    assert cores.available() == count


@pytest.mark.parametrize(("quota", "count"), [("-1", 8), ("300000", 3)])
def test_quota_of_the_first_version_of_control_groups(groups, quota, count):
    (groups / "cpu").mkdir()
    (groups / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (groups / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores.available() == count


def test_a_process_bound_to_one_core_has_one(groups, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert cores.available() == 1
