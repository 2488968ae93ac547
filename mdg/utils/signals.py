"""The signals that ask a program to stop."""

from __future__ import annotations

import signal

# Those a system has: Windows knows SIGTERM and SIGINT alone.
NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU")
STOPPING = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))


def heeded() -> list[signal.Signals]:
    """Those that are not ignored, as ``nohup`` ignores SIGHUP."""
    return [number for number in STOPPING if signal.getsignal(number) not in (signal.SIG_IGN, None)]
