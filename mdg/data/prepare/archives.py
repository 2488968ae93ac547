"""Zip and tar archives as sources."""

from __future__ import annotations

import gzip
import stat
import tarfile
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from mdg.data.prepare.source import Entry, FolderSource, Source, reading
from mdg.errors import DataError

BLOCK = tarfile.BLOCKSIZE
KEPT_TEXT = 1 << 20  # bytes; split files are far smaller


class ZipSource(Source):
    """A zip archive; the key of an entry is its ZipInfo. Its index lies at the end, so a cut one cannot be listed."""

    def _list(self) -> None:
        with zipfile.ZipFile(self.origin) as archive:
            for info in archive.infolist():
                name = info.filename.replace("\\", "/")  # as some Windows programs write it
                if stat.S_ISLNK(info.external_attr >> 16):
                    self.refused.append(name)
                elif not name.endswith("/"):
                    self._add(name, info.file_size, info)

    def stream(self, wanted: Collection[Entry]) -> Iterator[tuple[Entry, BinaryIO]]:
        with reading(self.origin):
            archive = zipfile.ZipFile(self.origin)
        with archive:
            for entry in sorted(wanted, key=lambda entry: entry.key.header_offset):
                with reading(self.origin, str(entry.path)):
                    file = archive.open(entry.key)
                with file:
                    yield entry, file


class TarSource(Source):
    """A tar archive, plain or gzipped, read from front to back; the key of an entry is the offset of its header.

    A gzipped archive is unpacked once for the list and once for the files, so the list keeps the small texts.
    """

    def _list(self) -> None:
        self._texts: dict[Entry, bytes] = {}
        with self._bytes() as file, tarfile.TarFile(fileobj=file) as archive:
            for member in archive:
                if member.issym() or member.islnk():
                    self.refused.append(member.name)
                elif member.isreg():
                    entry = self._add(member.name, member.size, member.offset)
                    if entry and entry.path.suffix.lower() == ".txt" and entry.size <= KEPT_TEXT:
                        self._texts[entry] = archive.extractfile(member).read()
            self._check_end(file, archive.offset)

    def _bytes(self) -> BinaryIO:
        with open(self.origin, "rb") as file:
            gzipped = file.read(2) == b"\x1f\x8b"
        return gzip.open(self.origin, "rb") if gzipped else open(self.origin, "rb")

    @staticmethod
    def _check_end(file: BinaryIO, offset: int) -> None:
        # tarfile takes a cut or unreadable header for the end; an archive really ends with a block of zeros.
        file.seek(offset)
        if file.read(BLOCK) != bytes(BLOCK):
            raise tarfile.ReadError("it stops before its end mark")
        while file.read(1 << 20):  # gzip compares its checksum at the very end only
            pass

    def stream(self, wanted: Collection[Entry]) -> Iterator[tuple[Entry, BinaryIO]]:
        by_offset = {entry.key: entry for entry in wanted}
        with reading(self.origin):
            file = self._bytes()
        with file:
            with reading(self.origin):
                archive = tarfile.TarFile(fileobj=file)
            while by_offset:
                with reading(self.origin):
                    member = archive.next()
                    entry = by_offset.pop(member.offset, None) if member else None
                    content = archive.extractfile(member) if entry else None
                if member is None:
                    break
                if entry is not None and content is not None:
                    yield entry, content

    def read(self, entry: Entry) -> bytes:
        kept = self._texts.get(entry)
        return super().read(entry) if kept is None else kept


SUFFIXES: dict[str, type[Source]] = {".tar.gz": TarSource, ".tgz": TarSource, ".tar": TarSource, ".zip": ZipSource}


def archive_suffix(name: str) -> str | None:
    """The suffix that makes ``name`` an archive we read, or None."""
    return next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)


def open_source(origin: Path) -> Source:
    """Lists a folder or an archive.

    Raises:
        DataError: Not there, of an unknown kind, damaged or incomplete.
    """
    if origin.is_dir():
        return FolderSource(origin, origin.resolve().name)
    suffix = archive_suffix(origin.name)
    if not origin.exists():
        raise DataError(f"{origin}: no such file or folder; expected the data set as a folder or an archive")
    if suffix is None:
        raise DataError(
            f"{origin}: neither a folder nor an archive of a known kind ({', '.join(SUFFIXES)}); unpack it and give "
            "the folder"
        )
    return SUFFIXES[suffix](origin, origin.name[: -len(suffix)])
