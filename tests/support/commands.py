"""Commands as users type them, run in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PLACES = [REPOSITORY, REPOSITORY / "scripts", REPOSITORY / "tests" / "support"]


def environment(**extra: str) -> dict[str, str]:
    """This checkout and what its tests import, one thread for each process."""
    path = os.pathsep.join(map(str, PLACES))
    return {**os.environ, "PYTHONPATH": path, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **extra}


def shell(*command: object, timeout: float = 300, **extra: str) -> subprocess.CompletedProcess:
    """Runs a command to its end; ``extra`` are variables of its environment."""
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=environment(**extra),
    )
