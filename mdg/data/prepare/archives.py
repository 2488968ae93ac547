"""Zip and tar archives as sources. What a file is follows from its first bytes, not from its name."""

from __future__ import annotations

import gzip
import io
import re
import stat
import tarfile
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

from mdg.data.prepare.source import AGAIN, Entry, FolderSource, Source, reading
from mdg.errors import DataError

BLOCK = tarfile.BLOCKSIZE
KEPT_TEXT = 1 << 20  # bytes; split files are far smaller
MOST_HEADER = 64 << 20  # bytes; tarfile reads the header of a member, of whatever size it says, in one piece
HEAD = 512  # bytes by which a file is known
UTF8_NAME, ENCRYPTED = 1 << 11, 1  # flags of a member of a zip
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
PART = re.compile(r"\.(z\d\d|\d{3}|part\d+\.\w+)$", re.IGNORECASE)
# What people have instead: first bytes, what that is, and what to do.
OTHERS = (
    (b"Rar!", "a RAR archive", "unpack it (unrar x, or 7z x) and give the folder"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it (7z x) and give the folder"),
    (b"BZh", "packed by bzip2", "unpack it (tar xjf, or bunzip2) and give the folder"),
    (b"\xfd7zXZ", "packed by xz", "unpack it (tar xJf, or unxz) and give the folder"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd", "unpack it (tar --zstd -xf) and give the folder"),
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself with `git lfs pull`"),
    (b"%PDF", "a PDF document", "download the archive itself"),
)


class ZipSource(Source):
    """A zip archive; the key of an entry is its ZipInfo. Its index lies at the end, so a cut one cannot be listed."""

    def _list(self) -> None:
        with zipfile.ZipFile(self.origin) as archive:
            for info in archive.infolist():
                name = _zip_name(info).replace("\\", "/")  # as some Windows programs write it
                if stat.S_ISLNK(info.external_attr >> 16):
                    self.refused.append(name)
                elif not name.endswith("/"):
                    self._check(info, name)
                    self._add(name, info.file_size, info)

    def _check(self, info: zipfile.ZipInfo, name: str) -> None:
        if info.flag_bits & ENCRYPTED:
            raise DataError(
                f"{self.origin}: is encrypted ({name}); unpack it with its password (7z x, or unzip) and give the "
                "folder"
            )
        if info.compress_type not in METHODS:
            raise DataError(
                f"{self.origin}: {name} is packed by method {info.compress_type}, which Python cannot unpack (Windows "
                "takes Deflate64, number 9, for large files); unpack it (7z x) and give the folder"
            )

    def stream(self, wanted: Collection[Entry]) -> Iterator[tuple[Entry, IO[bytes]]]:
        with reading(self.origin):
            archive = zipfile.ZipFile(self.origin)
        with archive:
            for entry in sorted(wanted, key=lambda entry: entry.key.header_offset):
                with reading(self.origin, str(entry.path)):
                    file = archive.open(entry.key)
                with file:
                    yield entry, file


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name of a member: UTF-8 where it is said or fits, else as ``zipfile`` reads it, in code page 437."""
    if info.flag_bits & UTF8_NAME or info.filename.isascii():
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")  # as `zip` on Linux writes it, without saying so
    except UnicodeError:
        return info.filename


class TarSource(Source):
    """A tar archive, plain or gzipped, read from front to back; the key of an entry is the offset of its header.

    A gzipped archive is unpacked once for the list and once for the files, so the list keeps the small texts.
    """

    def _list(self) -> None:
        self._texts: dict[Entry, bytes] = {}
        with self._bytes() as file, _Members(fileobj=file) as archive:
            for member in archive:
                archive.members = []  # which it would keep for questions that nobody asks
                if member.issym() or member.islnk():
                    self.refused.append(member.name)
                elif member.isreg():
                    entry = self._add(member.name, member.size, member.offset)
                    if entry and entry.path.suffix.lower() == ".txt" and entry.size <= KEPT_TEXT:
                        text = archive.extractfile(member)
                        assert text is not None  # of a regular member
                        self._texts[entry] = text.read()
            self._check_end(file, archive.offset)

    def _bytes(self) -> _Bounded:
        with open(self.origin, "rb") as file:
            gzipped = file.read(2) == b"\x1f\x8b"
        raw = gzip.open(self.origin, "rb") if gzipped else open(self.origin, "rb")  # noqa: SIM115  (the caller closes)
        return _Bounded(raw)

    @staticmethod
    def _check_end(file: _Bounded, offset: int) -> None:
        # tarfile takes a cut or unreadable header for the end; an archive really ends with a block of zeros.
        file.seek(offset)
        if file.read(BLOCK) != bytes(BLOCK):
            raise tarfile.ReadError("it stops before its end mark")
        while file.read(1 << 20):  # gzip compares its checksum at the very end only
            pass

    def stream(self, wanted: Collection[Entry]) -> Iterator[tuple[Entry, IO[bytes]]]:
        by_offset = {entry.key: entry for entry in wanted}
        with reading(self.origin):
            file = self._bytes()
        with file:
            with reading(self.origin):
                archive = _Members(fileobj=file)
            while by_offset:
                with reading(self.origin):
                    member = archive.next()
                    archive.members = []
                    entry = by_offset.pop(member.offset, None) if member else None
                    content = archive.extractfile(member) if member and entry else None
                if member is None:
                    break
                if entry is not None and content is not None:
                    yield entry, content

    def read_list(self, entry: Entry) -> bytes:
        kept = self._texts.get(entry)
        return super().read_list(entry) if kept is None else kept


class _Members(tarfile.TarFile):
    members: list[tarfile.TarInfo]  # which the stubs lack


class _Bounded(io.RawIOBase):
    """A file of which no single read is large: a few kilobytes of gzip can say that gigabytes of header follow."""

    def __init__(self, file: io.BufferedIOBase):
        self._file = file

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MOST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes, expected at most {MOST_HEADER}")
        return self._file.read(size)

    def close(self) -> None:
        self._file.close()
        super().close()


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
    if not origin.is_file():
        what = "a device or a pipe" if origin.exists() else "no such file or folder"
        raise DataError(f"{origin}: {what}; expected the data set as a folder or an archive")
    if PART.search(origin.name):
        raise DataError(
            f"{origin}: is one of several parts of an archive; unpack the first of them (7z x) and give the folder"
        )
    suffix = archive_suffix(origin.name)
    kind = _kind(origin) or (SUFFIXES[suffix] if suffix else None)
    if kind is None:
        raise DataError(
            f"{origin}: neither a folder nor an archive of a known kind ({', '.join(SUFFIXES)}); unpack it and give "
            "the folder"
        )
    return kind(origin, origin.name[: -len(suffix)] if suffix else origin.stem)


def _kind(origin: Path) -> type[Source] | None:
    """The kind of an archive by its first bytes; None where they say nothing.

    Raises:
        DataError: It is something else.
    """
    with reading(origin), open(origin, "rb") as file:
        head = file.read(HEAD)
    if not head:
        raise DataError(f"{origin}: is empty (0 bytes); download it again, {AGAIN}")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return ZipSource
    if head.startswith(b"\x1f\x8b") or head[257:262] == b"ustar":
        return TarSource
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"{")):
        raise DataError(
            f"{origin}: is a web page or the answer of a server, not an archive: the download was refused, or needs a "
            f"confirmation in the browser; open the link there, download the archive itself, {AGAIN}"
        )
    for mark, what, advice in OTHERS:
        if head.startswith(mark):
            raise DataError(f"{origin}: is {what}, expected a folder or one of {', '.join(SUFFIXES)}; {advice}")
    return None
