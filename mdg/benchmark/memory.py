"""Peak memory of a step, always in a process of its own: what else this process did must not count.

MB are 2**20 bytes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
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
        [sys.executable, "-m", "mdg.benchmark.memory_process"],
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
    if done.returncode == -signal.SIGKILL:
        return (
            "peak memory: the process that measures it was killed, most likely for want of memory; use smaller images "
            "or a smaller batch"
        )
    lines = "\n".join(done.stderr.strip().splitlines()[-MESSAGE_LINES:])
    return f"peak memory: the process that measures it ended with exit code {done.returncode}:\n{lines}"
