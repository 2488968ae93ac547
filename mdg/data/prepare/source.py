"""Where the files of a data set come from: one interface over folders and archives. Nothing here writes.

A source lists its regular files once and then hands out their bytes. Names that would lead outside the source
(absolute, or with ``..``) and links inside archives never become entries.
"""

from __future__ import annotations

import lzma
import os
import re
import struct
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from mdg.data.reading.files import is_hidden, walk
from mdg.errors import DataError, UserError
from mdg.utils.limits import limit, require_within

CONTROL = re.compile(r"[\x00-\x1f\x7f]")
CLUTTER = ("__macosx", "thumbs.db", "desktop.ini")
# Whatever zipfile and tarfile raise for damaged archives; RuntimeError for encrypted members and, as
# NotImplementedError, for unknown compression; the last four for headers of nonsense.
READ_ERRORS = (
    OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, RuntimeError,
    ValueError, OverflowError, MemoryError, struct.error,
)  # fmt: skip
AGAIN = "then repeat the command: finished files are kept"


@dataclass(frozen=True, eq=False)
class Entry:
    """One file of a source.

    Attributes:
        path: Place inside the source, never absolute and without ``..``.
        size: Bytes, uncompressed.
        source: The source that reads it.
        key: What the source finds it by.
    """

    path: PurePosixPath
    size: int
    source: Source
    key: Any


class Source(ABC):
    """The files of one folder or archive.

    Args:
        origin: The folder or archive.

    Attributes:
        name: Name of the origin without the suffix of an archive.
        refused: Names that were not taken: links in archives, and names that lead outside.

    Raises:
        DataError: The origin cannot be read.
    """

    def __init__(self, origin: Path, name: str):
        self.origin, self.name = origin, name
        self.refused: list[str] = []
        self._entries: dict[PurePosixPath, Entry] = {}
        with reading(origin):
            self._list()

    @property
    def entries(self) -> list[Entry]:
        """All files but hidden ones and the clutter that file managers leave."""
        return list(self._entries.values())

    @abstractmethod
    def _list(self) -> None:
        """Calls :meth:`_add` for every file."""

    @abstractmethod
    def stream(self, wanted: Collection[Entry]) -> Iterator[tuple[Entry, IO[bytes]]]:
        """Entries with a file to read each from, in the order in which they lie in the source."""

    def read_list(self, entry: Entry) -> bytes:
        """The bytes of a list file; what an archive says about its size is not relied on.

        Raises:
            DataError: It cannot be read, or is larger than the limit of lists.
        """
        where = f"{self.origin}: {entry.path}"
        require_within("list_bytes", entry.size, where, DataError)
        for _, file in self.stream([entry]):
            with reading(self.origin, str(entry.path)):
                content = file.read(limit("list_bytes") + 1)
            require_within("list_bytes", len(content), where, DataError)
            return content
        raise DataError(f"{self.origin}: {entry.path} is gone; give the source again as it was")

    def _add(self, name: str, size: int, key: Any) -> Entry | None:
        path = safe_path(name)
        if path is None:
            self.refused.append(name)
        if path is None or any(is_clutter(part) for part in path.parts):
            return None
        require_within("folder_files", len(self._entries) + 1, self.origin, DataError)
        entry = self._entries[path] = Entry(path, size, self, key)  # in archives the last file of a name counts
        return entry


class FolderSource(Source):
    """The files below a folder; links to files and folders are followed. The key of an entry is its real path."""

    def _list(self) -> None:
        for file in walk(self.origin, skip=is_clutter, once=True):
            if file.is_file():
                name = file.relative_to(self.origin).as_posix()
                self._add(name, file.stat().st_size, Path(os.path.realpath(file)))

    def stream(self, wanted: Collection[Entry]) -> Iterator[tuple[Entry, IO[bytes]]]:
        for entry in wanted:
            with reading(entry.key):
                file = open(entry.key, "rb")  # noqa: SIM115  (closed below, outside of the block that renames errors)
            with file:
                yield entry, file


def safe_path(name: str) -> PurePosixPath | None:
    """The path of a member inside its source, or None where it would lead outside or hold control characters, which
    terminals and lists follow."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or re.match(r"[A-Za-z]:/", name) or CONTROL.search(name) or ".." in parts or not parts:
        return None
    return PurePosixPath(*parts)


def is_clutter(name: str) -> bool:
    """Whether a file or folder is hidden or was left by a file manager."""
    return is_hidden(name) or name.lower() in CLUTTER


@contextmanager
def reading(origin: Path, member: str = "") -> Iterator[None]:
    """Turns whatever goes wrong while a source is read into a DataError that names it."""
    try:
        yield
    except UserError:
        raise
    except READ_ERRORS as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        what = f"{member} in it cannot be read" if member else "cannot be read"
        advice = "if the copy is damaged or incomplete, get it again"
        if isinstance(error, PermissionError):
            advice = "check who may read it"
        raise DataError(f"{origin}: {what} ({reason}); {advice}, {AGAIN}") from None
