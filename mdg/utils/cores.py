"""How many cores a process may use: what the system, a container and the user say."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
ENVIRONMENT = "OMP_NUM_THREADS"
LOADER_PROCESSES = 4  # more of them than cores take each other's time, and memory


def usable_cores() -> int:
    """Cores that this process may run on, no more than the quota of its container grants; 1 at least."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return max(1, cores if quota is None else min(cores, int(quota)))


def threads_of_process(local_size: int = 1) -> int:
    """Threads of one of ``local_size`` processes on this machine: what ``OMP_NUM_THREADS`` says, else its share of the
    cores."""
    asked = os.environ.get(ENVIRONMENT, "").split(",")[0]  # a list of nested levels: the first is this one's
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return max(1, usable_cores() // local_size)


def loader_processes(asked: int | None) -> int:
    """Processes that read for this one: ``asked``, else four, or this process's share of the cores where it is less."""
    if asked is not None:
        return asked
    return max(1, min(LOADER_PROCESSES, usable_cores() // processes_here()))


def processes_here() -> int:
    """Processes of this run on this machine, as a launcher (torchrun) says; 1 without one."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def _quota() -> float | None:
    """Cores that a container's quota amounts to (cgroups, version 2 or 1); None where there is none."""
    numbers = _words("cpu.max") or _words("cpu/cpu.cfs_quota_us") + _words("cpu/cpu.cfs_period_us")
    try:
        quota, period = map(float, numbers)
    except ValueError:  # "max", or nothing to read
        return None
    return quota / period if quota > 0 and period > 0 else None


def _words(name: str) -> list[str]:
    try:
        return (CGROUP / name).read_text(encoding="utf-8").split()
    except OSError:
        return []
