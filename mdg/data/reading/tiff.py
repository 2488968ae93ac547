"""Directories of TIFF files, and of the EXIF data that other formats embed: the few tags that decide how an image is
read."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
ORIENTATION, SAMPLES, EXTRA_SAMPLES = 274, 277, 338
PIECES = ((273, 279), (324, 325))  # offsets and lengths: of strips, of tiles
WANTED = {SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, SAMPLES, EXTRA_SAMPLES}
WANTED |= {tag for pair in PIECES for tag in pair}
NUMBERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # types of TIFF that hold whole numbers
MOST_DIRECTORIES, MOST_ENTRIES, MOST_NUMBERS = 1000, 4096, 1 << 20  # no honest file has more
REDUCED, MASK = 1, 4  # bits of SUBFILE: a smaller copy of another image, a mask of its transparent parts


class Directory(NamedTuple):
    """The numbers of one directory.

    Attributes:
        values: By tag.
        places: Where in the file the values of each tag begin, and how struct spells one of them.
    """

    values: dict[int, tuple[int, ...]]
    places: dict[int, tuple[int, str]]

    def first(self, tag: int, default: int) -> int:
        """The first (mostly the only) number of a tag."""
        return self.values.get(tag, (default,))[0]

    def rewritten(self, tag: int, value: int) -> tuple[int, bytes]:
        """Place and bytes that give a tag which is there another first number."""
        place, number = self.places[tag]
        return place, struct.pack(number, value)

    @property
    def extra(self) -> bool:
        """Whether it describes a smaller copy or a mask rather than an image of its own."""
        return bool(self.first(SUBFILE, 0) & (REDUCED | MASK))


def is_tiff(data: bytes) -> bool:
    """Whether the bytes begin as TIFF, BigTIFF or EXIF data do."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def directories(data: bytes) -> Iterator[Directory]:
    """The directories of a file, in the order in which they are chained; of those after the first only their kind.

    Raises:
        struct.error: A directory, or what it refers to, lies beyond the end or is larger than any honest one.
    """
    order = "<" if data[:1] == b"I" else ">"
    big = b"+" in data[2:4]
    (place,) = _numbers(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
    seen: set[int] = set()
    while place and place not in seen and len(seen) < MOST_DIRECTORIES:
        wanted = {SUBFILE} if seen else WANTED
        seen.add(place)
        directory, place = _read(data, place, order, big, wanted)
        yield directory


def orientation_of(exif: bytes) -> int:
    """The orientation (1..8) that EXIF data ask for; 1 where they are silent or broken, as viewers take it."""
    exif = exif.removeprefix(b"Exif\0\0")
    try:
        return valid_orientation(next(directories(exif)).first(ORIENTATION, 1)) if is_tiff(exif) else 1
    except (struct.error, StopIteration):
        return 1


def valid_orientation(value: int) -> int:
    """The value where it is one of the eight, else 1."""
    return value if 1 <= value <= 8 else 1


def _numbers(layout: str, data: bytes, place: int) -> tuple[int, ...]:
    """``struct.unpack_from`` for places that a file names: one of 64 bits is too large for it to say so itself."""
    if place > len(data):
        raise struct.error(f"place {place} beyond the end")
    return struct.unpack_from(layout, data, place)


def _read(data: bytes, place: int, order: str, big: bool, wanted: set[int]) -> tuple[Directory, int]:
    count, entry, width = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    (entries,) = _numbers(order + count, data, place)
    if entries > MOST_ENTRIES:
        raise struct.error(f"{entries} entries")
    place += struct.calcsize(f"={count}")
    values, places = {}, {}
    size = struct.calcsize(f"={entry}") + width
    for start in range(place, place + entries * size, size):
        tag, kind, number = _numbers(order + entry, data, start)
        if tag not in wanted or kind not in NUMBERS or not number:
            continue
        if number > MOST_NUMBERS:
            raise struct.error(f"{number} numbers")
        numbers = f"={number}{NUMBERS[kind]}"
        at = start + size - width
        if struct.calcsize(numbers) > width:  # too many to be kept in the entry itself
            (at,) = _numbers(order + ("Q" if big else "I"), data, at)
        values[tag] = _numbers(order + numbers[1:], data, at)
        places[tag] = at, order + NUMBERS[kind]
    (following,) = _numbers(order + ("Q" if big else "I"), data, place + entries * size)
    return Directory(values, places), following
