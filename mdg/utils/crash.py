"""Errors that nobody foresaw: one line for the user, and a file with everything that finding the fault needs."""

from __future__ import annotations

import os
import tempfile
import traceback
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from mdg.utils.launched import command_line

_known: dict[str, Any] = {}


def remember(**facts: Any) -> None:
    """Keeps facts for a report: ``config`` (YAML), ``folder`` (where reports go); None forgets one."""
    _known.update(facts)


def write_report(program: str, error: BaseException) -> Path | None:
    """Writes traceback, command, environment and configuration beside the run, else into the folder for temporary
    files; the file, or None where nothing can be written."""
    rank = os.environ.get("RANK")
    name = f"error-{program}-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}{f'-process{rank}' if rank else ''}.txt"
    text = _report(program, error)
    for folder in (_known.get("folder"), tempfile.gettempdir()):
        if folder is not None and Path(folder).is_dir():
            with suppress(OSError):
                file = Path(folder) / name
                file.write_text(text, encoding="utf-8", errors="backslashreplace")
                return file
    return None


def _report(program: str, error: BaseException) -> str:
    parts = {
        "program": program,
        "command": command_line(),
        "folder": os.getcwd(),
        "traceback": "".join(traceback.format_exception(error)),
        "environment": _environment(),
        "configuration": _known.get("config") or "(not read yet)",
    }
    return "\n".join(f"== {title}\n{content}\n" for title, content in parts.items())


def _environment() -> str:
    try:
        from mdg.utils.environment import describe_environment

        return "\n".join(f"{key}: {value}" for key, value in describe_environment().items())
    except Exception as error:  # whatever broke the program may break this too
        return f"cannot be described ({type(error).__name__}: {error})"
