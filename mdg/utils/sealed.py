"""Seals for ZIP files, which is what ``torch.save`` writes: damage of any byte is noticed on reading.

A ZIP holds a CRC-32 of every member, and the writer has computed it anyway. What it does not protect are its own
headers, the padding and the directory. The *seal* is a SHA-256 of all those bytes, CRCs included; it stands in the
comment at the end of the archive, which every reader of ZIP files skips. So sealing costs next to nothing however large
the tensors are, and a verification reads every byte once: as a part of a member or as a part of the seal.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mdg.errors import WeightsError
from mdg.utils.limits import require_within

MARK = b"mdg sha256 "
DIGITS = 64
COMMENT = len(MARK) + DIGITS
LOCAL_HEADER, LOCAL_MAGIC = 30, b"PK\x03\x04"
END_RECORD, END_MAGIC = 22, b"PK\x05\x06"
ENTRY, LARGE = struct.Struct("<16x3L3H8xL"), 0xFFFFFFFF
BLOCK = 1 << 22
GAP = 1 << 10


class Damaged(ValueError):
    """What is wrong with an archive, for the end of a sentence."""


def seal(stream: BinaryIO) -> None:
    """Seals the archive that was written to a stream that can be read too.

    Members are stored, not compressed, and the archive has no comment yet.
    """
    stream.seek(-2, 2)
    assert stream.read(2) == b"\0\0", "the archive has a comment already"
    stream.seek(-2, 2)
    stream.write(COMMENT.to_bytes(2, "little") + MARK + bytes(DIGITS))
    stream.flush()
    digest = _scan(stream, _written_members(stream) or _members(stream), read_members=False)
    stream.seek(-DIGITS, 2)
    stream.write(digest)


def verify_archive(file: Path) -> bool:
    """Reads a file and notices damage; whether it is sealed.

    An archive without a seal, as other programs write it, is verified by the CRCs of its members alone.

    Raises:
        Damaged: It is no ZIP archive from its first byte to its last, or one that was changed after it was written, or
            one that unfolds to more than its own size (compressed or overlapping members).
        WeightsError: A directory beyond the limit ``weights_directory_bytes``.
    """
    with open(file, "rb") as stream:
        sealed, record = _end_record(stream)
        require_within("weights_directory_bytes", record.directory, file, WeightsError)
        try:
            digest = _scan(stream, _members(stream), read_members=True)
        except Damaged:
            raise
        except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, ArithmeticError, EOFError) as error:
            raise Damaged(f"its structure was changed ({error})") from None
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise Damaged("its structure was changed (a place outside of the file)") from None
        if sealed and digest != record.comment[len(MARK) :]:
            raise Damaged("bytes outside of its members were changed")
    return sealed


class _EndRecord(NamedTuple):
    members: int
    directory: int
    """Bytes of the directory."""
    place: int
    """Where the directory begins."""
    comment: bytes


def _end_record(stream: BinaryIO) -> tuple[bool, _EndRecord]:
    # A seal of which a byte has changed is still one: otherwise the archive would pass for an unsealed one.
    size = stream.seek(0, 2)
    stream.seek(max(0, size - END_RECORD - COMMENT))
    tail = stream.read()
    sealed = MARK in tail or tail[:4] == END_MAGIC
    record = tail if sealed else tail[-END_RECORD:]
    if record[:4] != END_MAGIC:
        raise Damaged("its end is missing: it was cut off, or something was appended")
    members, directory, place, comment = struct.unpack("<10xH2LH", record[:END_RECORD])
    if comment != len(record) - END_RECORD or directory > size:
        raise Damaged("its last bytes were changed")
    return sealed, _EndRecord(members, directory, place, record[END_RECORD:])


class _Member(NamedTuple):
    name: str
    header: int
    """Where its header begins."""
    size: int
    crc: int


def _members(stream: BinaryIO) -> list[_Member]:
    """Members in the order of their bytes, as the library of ZIP files reads the directory."""
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise Damaged(f"its member {member.filename[:80]!r} is compressed, which torch.save never does")
    return sorted((_Member(m.filename, m.header_offset, m.file_size, m.CRC) for m in members), key=lambda m: m.header)


def _written_members(stream: BinaryIO) -> list[_Member] | None:
    """The same of an archive that this process has just written, in a tenth of the time; None where it has the 64-bit
    form."""
    _, end = _end_record(stream)
    if end.place == LARGE or end.members == 0xFFFF:
        return None
    stream.seek(end.place)
    directory, at, members = stream.read(end.directory), 0, []
    for _ in range(end.members):
        crc, stored, size, name, extra, comment, header = ENTRY.unpack_from(directory, at)
        if LARGE in (stored, size, header):
            return None
        members.append(_Member("", header, size, crc))
        at += ENTRY.size + name + extra + comment
    return sorted(members, key=lambda m: m.header)


def _scan(stream: BinaryIO, members: list[_Member], read_members: bool) -> bytes:
    """The digest in hexadecimal of all bytes but those of members and the last digits; on demand compares the CRCs."""
    digest = hashlib.sha256()
    end = stream.seek(0, 2) - DIGITS
    at = 0
    for member in members:
        if member.header < at:
            raise Damaged(f"its member {member.name[:80]!r} lies in others, or something was put before it")
        # From the end of the member before: a header and some padding, as a rule.
        before = _read_at(stream, at, min(GAP, end - at))
        header = before[member.header - at :][:LOCAL_HEADER]
        if len(header) < LOCAL_HEADER:
            header = _read_at(stream, member.header, LOCAL_HEADER)
        first = _first_byte(header, member)
        if first + member.size > end + DIGITS:
            raise Damaged(f"its member {member.name[:80]!r} lies beyond the end")
        if first - at <= len(before):
            digest.update(before[: first - at])
        else:
            _hash(stream, at, first, digest)
        at = first + member.size
        if read_members and _crc(stream, first, member.size) != member.crc:
            raise Damaged(f"its member {member.name[:80]!r} was changed")
    _hash(stream, at, end, digest)
    return digest.hexdigest().encode()


def _first_byte(header: bytes, member: _Member) -> int:
    if len(header) < LOCAL_HEADER or header[:4] != LOCAL_MAGIC:
        raise Damaged(f"its member {member.name[:80]!r} is not where it should be")
    name, extra = struct.unpack("<26x2H", header)
    return member.header + LOCAL_HEADER + name + extra


def _read_at(stream: BinaryIO, place: int, length: int) -> bytes:
    """Past the stream's buffer, which would read much more at each place."""
    if hasattr(os, "pread"):
        return os.pread(stream.fileno(), length, place)
    stream.seek(place)
    return stream.read(length)


def _hash(stream: BinaryIO, first: int, end: int, digest: Any) -> None:
    stream.seek(first)
    while first < end:
        block = stream.read(min(BLOCK, end - first))
        if not block:
            raise Damaged("it ends too early")
        digest.update(block)
        first += len(block)


def _crc(stream: BinaryIO, first: int, length: int) -> int:
    stream.seek(first)
    value = 0
    while length:
        block = stream.read(min(BLOCK, length))
        if not block:
            raise Damaged("it ends too early")
        value = zlib.crc32(block, value)
        length -= len(block)
    return value
