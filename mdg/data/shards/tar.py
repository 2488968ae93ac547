"""Plain tar files (POSIX ustar) with the same bytes for the same members, and what a member's place in them is.

Source: IEEE Std 1003.1, pax, "ustar Interchange Format": blocks of 512 bytes, two blocks of zeros at the end, records
of 20 blocks. Times, owners and rights are the same everywhere, so that only names and contents count.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from typing import BinaryIO

BLOCK = tarfile.BLOCKSIZE
NAME = 100  # bytes of a name in a header


class TarWriter:
    """Writes members one after the other.

    Args:
        stream: Takes the bytes; it is not closed here.

    Attributes:
        size: Bytes so far.
    """

    def __init__(self, stream: BinaryIO):
        self._stream, self._digest = stream, hashlib.sha256()
        self.size = 0

    def add(self, name: str, content: bytes) -> tuple[int, int, int]:
        """Appends a member; returns offset, length and CRC-32 of its content."""
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), 0o644
        self._write(info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict"))
        offset = self.size
        self._write(content)
        self._write(bytes(-len(content) % BLOCK))
        return offset, len(content), zlib.crc32(content)

    def close(self) -> str:
        """Writes the end; returns the SHA-256 of everything."""
        self._write(bytes(2 * BLOCK))
        self._write(bytes(-self.size % tarfile.RECORDSIZE))
        return self._digest.hexdigest()

    def _write(self, content: bytes) -> None:
        self._stream.write(content)
        self._digest.update(content)
        self.size += len(content)


def member_bytes(length: int) -> int:
    """Bytes that a member of ``length`` bytes takes in a tar."""
    return BLOCK + length + -length % BLOCK


def name_at(stream: BinaryIO, offset: int) -> str:
    """The name in the header before the content at ``offset``; empty where no header is."""
    stream.seek(offset - BLOCK)
    header = stream.read(BLOCK)
    if header[257:262] != b"ustar":
        return ""
    return header[:NAME].split(b"\0", 1)[0].decode("ascii", "replace")
