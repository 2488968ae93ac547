"""A folder that holds whole shards up to a number of bytes, for all processes of a host that name it.

Files of one shard, of which ``NAME`` begins with its digest::

    NAME            the shard, whole and checked; its time of change is that of its last use
    NAME.fetched*   what comes, until it is whole
    NAME.claim      the bytes that a process set apart for it
    NAME.lock       held by that process, and freed by the system where it dies

Whoever wants a shard that is not there takes ``turn.lock`` for a moment, removes the shards that were used longest ago
until there is room, and claims that room; the transfer itself is under the lock of the shard alone, so that several
come at once. What is there and what is claimed never exceed the bound.

A shard is opened for one frame at a time: one that was removed while it was read gives back its room at once after.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from filelock import FileLock, Timeout

from mdg.errors import DataError, MachineError
from mdg.utils.files import explained, file_error

BETWEEN_LOOKS = 0.05  # seconds
TURN = "turn.lock"
ENDING = ".tar"

Fetch = Callable[[Path], None]
"""Writes a whole, checked file; may write beside it, under names that begin with its own."""


class _Held(NamedTuple):
    """All files of one shard: bytes on the disk, time of the last use, their paths."""

    bytes: int
    used: float
    files: list[Path]


class ShardCache:
    """Shards by name.

    Args:
        folder: Made where it does not exist.
        most: Bytes that shards may take in it.
    """

    def __init__(self, folder: Path, most: int):
        self.folder, self.most = folder, most

    def open(self, name: str, size: int, fetch: Fetch) -> BinaryIO:
        """The shard, open for reading; fetched first where it is not there.

        Args:
            name: Ends in ``.tar``.
            size: Its bytes, at most ``most``.
            fetch: Called where it has to be brought, with the path to write to.

        Raises:
            DataError: The folder cannot be used. MachineError: no room on the disk. And what ``fetch`` raises.
        """
        assert name.endswith(ENDING) and size <= self.most, (name, size)
        try:
            return self._open(name, size, fetch)
        except OSError as error:
            found = file_error(error, self.folder)
            kind = type(found) if isinstance(found, MachineError) else DataError
            raise kind(
                f"{found}; shards that are fetched cannot be kept there: name another folder as data.cache"
            ) from (None)
        except NotImplementedError as error:  # a file system without locks
            raise DataError(f"{self.folder}: cannot lock files there ({error}); name another data.cache") from None

    def discard(self, name: str) -> None:
        """Removes a shard that is not as it was fetched."""
        with explained(self.folder), self._turn():
            (self.folder / name).unlink(missing_ok=True)

    def _open(self, name: str, size: int, fetch: Fetch) -> BinaryIO:
        file = self.folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        while True:
            with suppress(FileNotFoundError):
                stream = open(file, "rb")  # noqa: SIM115  (the caller closes it)
                with suppress(OSError):
                    os.utime(file)
                return stream
            claim = self._claim(name, size)
            if claim is None:
                time.sleep(BETWEEN_LOOKS)
                continue
            try:
                coming = self.folder / f"{name}.fetched"
                coming.unlink(missing_ok=True)
                fetch(coming)
                os.replace(coming, file)
                # Before others may remove it again: whoever fetched a shard reads at least one frame of it.
                return open(file, "rb")
            finally:
                with self._turn():
                    (self.folder / f"{name}.claim").unlink(missing_ok=True)
                    _give_back(claim)

    def _claim(self, name: str, size: int) -> FileLock | None:
        """The lock of a shard for which room was made; None where another process is at it, or holds all the room."""
        with self._turn():
            if (self.folder / name).exists():
                return None
            claim = FileLock(self.folder / f"{name}.lock", timeout=0)
            try:
                claim.acquire()
            except Timeout:
                return None
            try:
                if self._make_room(name, size):
                    (self.folder / f"{name}.claim").write_text(str(size), encoding="ascii")
                    return claim
            except BaseException:
                _give_back(claim)
                raise
            _give_back(claim)
            return None

    def _make_room(self, name: str, size: int) -> bool:
        held, free = self._look(), self.most - size
        held.pop(name, None)  # what came of it before counts in its own size
        claimed = {other: got for other in held if (got := self._claimed(other)) is not None}
        idle = sorted((shard.used, other) for other, shard in held.items() if other not in claimed)
        free -= sum(claimed.values()) + sum(held[other].bytes for _, other in idle)
        for _, other in idle:
            if free >= 0:
                break
            for file in held[other].files:
                file.unlink(missing_ok=True)
            free += held[other].bytes
        return free >= 0

    def _claimed(self, name: str) -> int | None:
        """Bytes that a living process set apart for a shard; what a dead one left of its claim is removed."""
        claim = self.folder / f"{name}.claim"
        try:
            size = int(claim.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None
        lock = FileLock(self.folder / f"{name}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return size
        claim.unlink(missing_ok=True)
        _give_back(lock)
        return None

    def _look(self) -> dict[str, _Held]:
        held: dict[str, _Held] = {}
        with os.scandir(self.folder) as entries:
            for entry in entries:
                stem, ending, rest = entry.name.partition(ENDING)
                if not ending or rest == ".lock":
                    continue
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    before = held.get(stem + ending, _Held(0, 0.0, []))
                    size = 0 if rest == ".claim" else status.st_size
                    used = max(before.used, status.st_mtime)
                    held[stem + ending] = _Held(before.bytes + size, used, [*before.files, Path(entry.path)])
        return held

    @contextmanager
    def _turn(self) -> Iterator[None]:
        lock = FileLock(self.folder / TURN)
        lock.acquire(poll_interval=0.01)
        try:
            yield
        finally:
            lock.release()


def _give_back(lock: FileLock) -> None:
    """Releases the lock of a shard and removes its file; only whose turn it is may, since others open it by name."""
    lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)
