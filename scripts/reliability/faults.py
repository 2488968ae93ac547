"""Breaks a program off at its n-th change of a folder: inside the program's own process, below everything it imports.

Every open for writing, write, sync, rename, link, new folder and removal under one folder is a *point*, counted from 0
in the order they happen. At one of them the process is killed, or the system call fails as on a full disk.
"""

from __future__ import annotations

import builtins
import io
import itertools
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

KILL = -1
MOMENTS = ("before", "half", "after")  # "half": after half of the bytes of a write


class Fault(NamedTuple):
    """What happens at which point.

    Attributes:
        at: Number of the point.
        moment: One of MOMENTS.
        error: An errno with which the call fails, or KILL.
        stays: Whether later points fail too, as on a disk that stays full; not for a kill.
        kinds: The kinds of points that fail; empty means all. The numbers count all kinds.
    """

    at: int
    moment: str = "before"
    error: int = KILL
    stays: bool = False
    kinds: tuple[str, ...] = ()


class Points:
    """Counts the points below ``folder`` and sets off ``fault`` at one of them; ``record`` lists them as lines."""

    def __init__(self, folder: Path, fault: Fault | None = None, record: Path | None = None):
        self.folder, self.fault = os.path.realpath(folder), fault
        self._numbers = itertools.count()
        self._record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if record else None
        self._local = threading.local()

    def install(self) -> None:
        """Watches this process from here on. There is no way back: it is meant for a process that ends soon."""
        self._real_write = os.write
        for name in ("mkdir", "rmdir", "unlink", "remove", "truncate"):
            setattr(os, name, self._watched(name, getattr(os, name), lambda args: args[0]))
        for name in ("rename", "replace", "link", "symlink"):
            setattr(os, name, self._watched(name, getattr(os, name), lambda args: args[1]))
        for name in ("fsync", "fdatasync", "ftruncate", "write"):
            setattr(os, name, self._watched(name, getattr(os, name), lambda args: _path_of(args[0])))
        os.open = self._watched_open(os.open)
        builtins.open = io.open = self._file_open(builtins.open)

    def around(self, kind: str, path: Any, call: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        """Makes the call, which is a point if ``path`` lies below the folder."""
        if getattr(self._local, "inside", False) or not self._below(path):
            return call()
        self._local.inside = True
        try:
            number = next(self._numbers)
            if self._record is not None:
                self._real_write(self._record, f"{number} {kind} {os.path.relpath(path, self.folder)}\n".encode())
            if self._due(number, kind, "before"):
                self._set_off(path)
            if half is not None and self._due(number, kind, "half"):
                half()
                self._set_off(path)
            try:
                return call()
            finally:
                if self._due(number, kind, "after"):
                    self._set_off(path)
        finally:
            self._local.inside = False

    def _due(self, number: int, kind: str, moment: str) -> bool:
        fault = self.fault
        if fault is None or (fault.kinds and kind not in fault.kinds):
            return False
        if fault.stays and number > fault.at:
            return moment == "before"
        return number == fault.at and moment == fault.moment

    def _set_off(self, path: Any) -> None:
        if self.fault.error == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(self.fault.error, os.strerror(self.fault.error), str(path))

    def _below(self, path: Any) -> bool:
        if path is None or isinstance(path, int):
            return False
        real = os.path.realpath(os.fsdecode(path))
        return real == self.folder or real.startswith(self.folder + os.sep)

    def _watched(self, kind: str, real: Callable, path_of: Callable[[tuple], Any]) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            path = path_of(args)
            half = (lambda: real(args[0], args[1][: len(args[1]) // 2])) if kind == "write" else None
            return self.around(kind, path, lambda: real(*args, **kwargs), half)

        return call

    def _watched_open(self, real: Callable) -> Callable:
        def call(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            if flags & (os.O_CREAT | os.O_TRUNC):
                return self.around("open", path, lambda: real(path, flags, *args, **kwargs))
            return real(path, flags, *args, **kwargs)

        return call

    def _file_open(self, real: Callable) -> Callable:
        points = self

        class WatchedFile(io.FileIO):
            def write(self, data: Any) -> int:
                view, write = memoryview(data).cast("B"), super().write
                half = view[: len(view) // 2]
                return points.around("write", self.name, lambda: write(view), lambda: write(half))

        def call(
            file: Any,
            mode: str = "r",
            buffering: int = -1,
            encoding: str | None = None,
            errors: str | None = None,
            newline: str | None = None,
            closefd: bool = True,
            opener: Any = None,
        ) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax+") or not points._below(file):
                return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
            bare = mode.replace("t", "").replace("b", "")
            raw = points.around("open", file, lambda: WatchedFile(file, bare, closefd, opener))
            if buffering == 0:
                return raw
            stream = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            if "b" in mode:
                return stream
            text = io.TextIOWrapper(stream, encoding, errors, newline)
            text.mode = mode
            return text

        return call


def _path_of(descriptor: Any) -> str | None:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor if isinstance(descriptor, int) else descriptor.fileno()}")
    except (OSError, ValueError):
        return None


def read_record(file: Path) -> list[tuple[str, str]]:
    """Kind and path of every recorded point, in order."""
    lines = [line.split(" ", 2) for line in file.read_text(encoding="utf-8").splitlines()]
    return [(kind, path) for _, kind, path in lines]
