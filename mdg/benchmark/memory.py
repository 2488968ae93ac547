"""Peak memory of a step, always in a process of its own: what else this process did must not count.

That process is this module run as a program: it takes the job as JSON on stdin, gives the result on stdout, and imports
nothing but what the job needs. MB are 2**20 bytes.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from mdg.errors import UserError

MESSAGE_LINES = 12


def peak_memory(target: str, arguments: dict[str, Any], steps: int = 2) -> dict[str, Any]:
    """Runs a step in a new process that does nothing else.

    Args:
        target: ``module:function``; called with ``arguments`` it returns a step, which is called without any.
        arguments: Plain values.
        steps: Calls of the step. Two: the second step of a training run holds the optimizer's state as well.

    Returns:
        ``peak_memory_mb``: the most that the process ever held. ``baseline_memory_mb``: what it held after imports and
        building, before the first step. ``memory_of``: "process" (resident set) or "GPU" (PyTorch's allocator).

    Raises:
        UserError: The process failed; the message ends with its last lines.
    """
    job = json.dumps({"target": target, "arguments": arguments, "steps": steps})
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    done = subprocess.run(
        [sys.executable, "-m", "mdg.benchmark.memory"],
        input=job,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    if done.returncode:
        raise UserError(_failure(done))
    return json.loads(done.stdout.strip().splitlines()[-1])


def _failure(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode == -getattr(signal, "SIGKILL", 9):
        return (
            "peak memory: the process that measures it was killed, most likely for want of memory; use smaller images "
            "or a smaller batch"
        )
    lines = "\n".join(done.stderr.strip().splitlines()[-MESSAGE_LINES:])
    return f"peak memory: the process that measures it ended with exit code {done.returncode}:\n{lines}"


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
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (BYTES_PER_MB if sys.platform == "darwin" else KIB_PER_MB)


if __name__ == "__main__":
    main()
