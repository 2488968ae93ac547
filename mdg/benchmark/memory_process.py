"""The process whose memory :func:`mdg.benchmark.memory.peak_memory` measures: job as JSON on stdin, result on stdout.

It imports nothing but what the job needs.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

KIB_PER_MB = 1024
BYTES_PER_MB = 2**20


def main() -> None:
    job = json.load(sys.stdin)
    module, _, name = job["target"].partition(":")
    step = getattr(importlib.import_module(module), name)(job["arguments"])
    baseline = held_mb()
    for _ in range(job["steps"]):
        step()
    result = {"peak_memory_mb": peak_mb(), "baseline_memory_mb": baseline, "memory_of": "GPU" if _cuda() else "process"}
    print("\n" + json.dumps(result))


def _cuda() -> Any:
    """``torch.cuda`` where this process uses it."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def held_mb() -> float:
    """What the process holds now."""
    if cuda := _cuda():
        return cuda.memory_allocated() / BYTES_PER_MB
    held = _status_kib("VmRSS")
    return peak_mb() if held is None else held / KIB_PER_MB  # at this point hardly less than the peak


def peak_mb() -> float:
    """The most that the process ever held."""
    if cuda := _cuda():
        return cuda.max_memory_allocated() / BYTES_PER_MB
    peak = _status_kib("VmHWM")
    return _peak_of_getrusage() if peak is None else peak / KIB_PER_MB


def _status_kib(key: str) -> int | None:
    file = Path("/proc/self/status")
    if not file.is_file():
        return None
    return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(f"{key}:"))


def _peak_of_getrusage() -> float:
    # Not on Linux, where it starts with the peak of the process that started this one.
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (BYTES_PER_MB if sys.platform == "darwin" else KIB_PER_MB)


if __name__ == "__main__":
    main()
