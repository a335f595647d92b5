"""The number of cores that this process may use, which the reader's threads follow."""

import os
import pathlib

_CGROUP = pathlib.Path("/sys/fs/cgroup")


def available() -> int:
    """Cores that the process may run on, or that the quota of its container is worth if less.

    A part of a core counts as one.

    Example:
        >>> available() >= 1
        True
    """
    return max(1, min([len(os.sched_getaffinity(0)), *_quotas()]))


def _quotas() -> list[int]:
    """The cores that quotas of control groups are worth, of both versions of control groups."""
    quotas = []
    for paths in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            words = " ".join((_CGROUP / path).read_text() for path in paths).split()
            quota, period = map(int, words)
        except (OSError, ValueError):  # No control group of this version, or no bound ("max").
            continue
        if quota > 0 and period > 0:
            quotas.append(-(-quota // period))
    return quotas
