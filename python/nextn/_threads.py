"""How many threads to compute with when nobody says."""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["default_n_threads"]

_MOST_THREADS = 512  # the engine's limit


def default_n_threads() -> int:
    """Physical cores this process may use: CPU affinity and the container's quota are obeyed, at least 1.

    Two threads on one core's two hardware threads compute no faster, they wait for each other.
    """
    n_cores = len({_core_of(cpu) for cpu in _allowed_cpus()})
    quota = _cgroup_quota()
    if quota is not None:
        n_cores = min(n_cores, math.ceil(quota))
    return min(max(1, n_cores), _MOST_THREADS)


def _allowed_cpus() -> set[int]:
    """Logical CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _core_of(cpu: int) -> str:
    """A name of the physical core of a logical CPU; its own number where the system does not say."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _cgroup_quota() -> float | None:
    """CPUs that the container's quota allows (cgroup v2, then v1), None without one."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        us = int(Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text())
        period_us = int(Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return us / period_us if us > 0 and period_us > 0 else None
