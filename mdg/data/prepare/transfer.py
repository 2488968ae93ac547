"""Writing the files of a plan: each appears under its name when it is whole, so a run can stop at any time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mdg.data.prepare.plan import Item
from mdg.data.prepare.source import AGAIN, Entry, FolderSource, Source, reading
from mdg.errors import DataError, UserError
from mdg.utils.files import explained, replacing

CHUNK = 1 << 20  # bytes
Advance = Callable[[int], object]


@dataclass
class Outcome:
    """What was done.

    Attributes:
        copied, linked: Numbers of files.
        link_refused: Why hard links could not be made, where they could not.
    """

    copied: int = 0
    linked: int = 0
    link_refused: str | None = None


def transfer(
    items: Iterable[Item], destination: Path, link: bool, advance: Advance, say: Callable[[str], object]
) -> Outcome:
    """Writes files that are not at the destination yet.

    Args:
        items: Files to write; none of the targets exists.
        destination: Folder, made where it is missing.
        link: Make hard links to the files of folders.
        advance: Called with numbers of bytes done.
        say: Called with the message that links are not possible.

    Raises:
        DataError: A file cannot be read. MachineError: no room. UserError: a file cannot be written. Those finished
            before stay.
    """
    outcome = Outcome()
    by_source: dict[Source, dict[Entry, Path]] = {}
    for item in items:
        target = destination / item.target
        if item.entry is None:
            write_whole(target, [item.content])
            outcome.copied += 1
            advance(item.size)
        else:
            by_source.setdefault(item.entry.source, {})[item.entry] = target
    for source, targets in by_source.items():
        if link and isinstance(source, FolderSource):
            targets = _link(targets, outcome, advance)
            if targets:
                reason = f"hard links are not possible ({outcome.link_refused})"
                say(f"{source.origin}: {reason}; {len(targets)} files are copied instead")
        _copy(source, targets, outcome, advance)
    return outcome


def write_whole(target: Path, chunks: Iterable[bytes]) -> None:
    """Writes a file that appears under its name only when all of it is there."""
    with _keeping(), replacing(target) as file:
        for chunk in chunks:
            file.write(chunk)


@contextmanager
def _keeping() -> Iterator[None]:
    """Says after what stopped the writing that nothing of what was done is lost."""
    try:
        yield
    except DataError:  # of the source, which says so
        raise
    except UserError as error:
        raise type(error)(f"{error}, {AGAIN}") from None


def _copy(source: Source, targets: dict[Entry, Path], outcome: Outcome, advance: Advance) -> None:
    for entry, file in source.stream(targets):
        write_whole(targets[entry], _chunks(entry, file, advance))
        outcome.copied += 1


def _chunks(entry: Entry, file: IO[bytes], advance: Advance) -> Iterator[bytes]:
    left = entry.size
    while True:
        with reading(entry.source.origin, str(entry.path)):
            chunk = file.read(CHUNK)
            left -= len(chunk)
            if left < 0 or (left and not chunk):
                raise EOFError(f"{entry.size - left} bytes, expected {entry.size}")
        if not chunk:
            return
        advance(len(chunk))
        yield chunk


def _link(targets: dict[Entry, Path], outcome: Outcome, advance: Advance) -> dict[Entry, Path]:
    """Hard links instead of copies; returns the files for which there can be none."""
    refused = {}
    for entry, target in targets.items():
        with _keeping(), explained(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(entry.key, target)
            outcome.linked += 1
            advance(entry.size)
        except OSError as error:  # another file system, one without hard links, files of another user
            outcome.link_refused = error.strerror or str(error)
            refused[entry] = target
    return refused
