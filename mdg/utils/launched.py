"""What a process knows of the launcher that started it, ours (``mdg.launch``) or torchrun, and which signals stop it.

Nothing here needs torch, so that the launcher itself starts at once.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import sys
import threading
import time
from pathlib import Path

LAUNCH_ID, LAUNCHER, RESTARTS, LISTENER = "MDG_LAUNCH_ID", "MDG_LAUNCHER", "MDG_RESTARTS", "MDG_LISTENER"
SECONDS_BETWEEN_LOOKS = 0.5


def command_line() -> str:
    """The command of this process as a shell takes it, its program seen from the working directory where it lies below
    that."""
    program = Path(sys.argv[0])
    if program.is_absolute() and program.is_relative_to(Path.cwd()):
        program = program.relative_to(Path.cwd())
    return shlex.join([str(program), *sys.argv[1:]])


def launch_id() -> str | None:
    """A name of the launch that this process belongs to; None where it was started alone.

    It is the same after every restart of a launch and differs between launches. Over several machines every launcher
    has its own: what the main process says is what counts.
    """
    if own := os.environ.get(LAUNCH_ID):
        return own
    if (run := os.environ.get("TORCHELASTIC_RUN_ID")) is None:
        return None
    # The name of a run is "none" for many launches. A number of a process comes back, though not with the same start.
    parent = os.getppid()
    return f"{run}-{socket.gethostname()}-{parent}-{_start_of(parent)}"


def restart_count() -> int:
    """How often this launch was restarted after a failure; 0 in the first attempt and for a process alone."""
    return int(os.environ.get(RESTARTS) or os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0)


def end_with_launcher() -> None:
    """From now on the end of the launcher, however it comes, is a SIGTERM to this process: it saves and stops.

    A thread looks who the parent is. That works on Linux and macOS alike and cannot miss a launcher that ended before
    the first look; on Windows, where an orphan keeps its parent's number, nothing is done.
    """
    if os.name != "posix" or not (LAUNCHER in os.environ or "TORCHELASTIC_RUN_ID" in os.environ):
        return
    launcher = int(os.environ.get(LAUNCHER) or os.getppid())
    threading.Thread(target=_watch, args=(launcher,), name="end-with-launcher", daemon=True).start()


def _watch(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)


def _start_of(process: int) -> str:
    """When a process began, in the system's ticks; empty where the system does not tell."""
    try:
        # The name of the program, in brackets, may hold blanks and brackets; the start is the 20th field behind it.
        return (
            Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
        )
    except OSError:
        return ""


# Those a system has: Windows knows SIGTERM and SIGINT alone.
NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU")
STOPPING = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))


def heeded() -> list[signal.Signals]:
    """Those that are not ignored, as ``nohup`` ignores SIGHUP."""
    return [number for number in STOPPING if signal.getsignal(number) not in (signal.SIG_IGN, None)]
