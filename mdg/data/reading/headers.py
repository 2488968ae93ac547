"""What the header of an image file says, before a pixel is decoded: size, orientation, how many images there are.

The parsers look at markers and lengths only, so that a header costs microseconds. Formats that are rare here are left
to Pillow.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image

from mdg.data.reading import tiff

LOSSY_IN_TIFF = {6, 7, 34892, 50001}  # compressions: JPEG as of old and new, JPEG of raw photos, WebP
BY_PILLOW = ("GIF", "AVIF", "JPEG2000", "PPM", "SUN")
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
NO_LENGTH = {0x01, *range(0xD0, 0xD9)}  # JPEG markers that stand alone
# What Pillow raises for damaged files; the last where a frame is larger than its header says.
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, ArithmeticError, Image.DecompressionBombError)
MOST_PARTS = 1_000_000  # chunks and segments: no honest file has more, and another would keep the reader busy
SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # JPEG markers that tell the size
SCAN = 0xDA  # JPEG marker after which the pixels come


class Header(NamedTuple):
    """What is known of an image without decoding it.

    Attributes:
        kind: "PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", ...
        height, width: As stored, before any turn.
        channels: As stored; 1 for a palette.
        bits: Per channel, or per index into a palette.
        orientation: 1..8 as EXIF numbers them: how the stored pixels must be turned to be seen upright.
        images: Frames of an animation, pages of a document; 2 where there are several.
        palette: Whether pixels are indices into a table of colours.
        lossy: Whether neighbouring pixels are mixed by the compression.
        complete: False where the file ends before what it announces.
        preview: Whether the first image is a smaller copy of another one.
        replaced: Bytes to be replaced before decoding, by their place; they keep decoders from acting on their own.
    """

    kind: str
    height: int
    width: int
    channels: int
    bits: int = 8
    orientation: int = 1
    images: int = 1
    palette: bool = False
    lossy: bool = False
    complete: bool = True
    preview: bool = False
    replaced: tuple[tuple[int, bytes], ...] = ()


def parse_header(data: bytes) -> Header | None:
    """The header of a file given as its bytes; None for what is no image, or ends within its header."""
    parsers = (
        (data[:4] == b"\x89PNG", _png),
        (data[:3] == b"\xff\xd8\xff", _jpeg),
        (tiff.is_tiff(data), _tiff),
        (data[:2] == b"BM", _bmp),
        (data[:4] == b"RIFF" and data[8:12] == b"WEBP", _webp),
    )
    parse = next((parse for fits, parse in parsers if fits), _by_pillow)
    try:
        header = parse(data)
    except (struct.error, IndexError, StopIteration):
        return None
    return header if header and header.height > 0 and header.width > 0 else None


def _png(data: bytes) -> Header:
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    header = Header("PNG", height, width, PNG_CHANNELS.get(colour, 0), bits, palette=colour == 3, complete=False)
    place = 8
    for _ in range(MOST_PARTS):
        if place + 12 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, place)
        place += length + 12
        if kind == b"eXIf":
            header = header._replace(orientation=tiff.orientation_of(data[place - length - 4 : place - 4]))
        elif kind == b"acTL":
            header = header._replace(images=min(2, struct.unpack_from(">I", data, place - length - 4)[0]))
        elif kind == b"IEND":
            return header._replace(complete=place <= len(data))
    return header


def _jpeg(data: bytes) -> Header | None:
    header = Header("JPEG", 0, 0, 0, lossy=True)
    oriented = False
    for marker, place, end in jpeg_segments(data):
        if marker == SCAN:
            # Within a scan 0xFF is always followed by zero or a restart, so this is its end. Previews lie in segments.
            return header._replace(complete=data.rfind(b"\xff\xd9", place) > 0)
        if marker in SIZES and not header.height:
            bits, height, width, channels = struct.unpack_from(">BHHB", data, place)
            header = header._replace(height=height, width=width, channels=channels, bits=bits)
        elif marker == 0xE1 and not oriented and data[place : place + 6] == b"Exif\0\0":
            oriented = True
            header = header._replace(orientation=tiff.orientation_of(data[place:end]))
    return None


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, begin and end of what each segment of a JPEG file holds, up to the first scan, which is the last.

    Raises:
        struct.error, IndexError: The file ends within a segment's first bytes.
    """
    place = 2
    for _ in range(MOST_PARTS):
        place = data.find(b"\xff", place)  # some cameras leave stray bytes between segments
        if place < 0:
            return
        marker = data[place + 1]
        if marker == 0xFF or marker in NO_LENGTH:
            place += 1 if marker == 0xFF else 2
            continue
        if marker == SCAN:
            yield marker, place + 2, len(data)
            return
        (length,) = struct.unpack_from(">H", data, place + 2)
        yield marker, place + 4, place + 2 + length
        place += 2 + length


def _tiff(data: bytes) -> Header:
    chain = tiff.directories(data)
    first = next(chain)
    images, complete = int(not first.extra), True
    try:
        images += any(not directory.extra for directory in chain)
    except struct.error:
        complete = False
    pieces = [pair for tags in tiff.PIECES for pair in zip(*(first.values.get(tag, ()) for tag in tags), strict=False)]
    compression, extra = first.first(tiff.COMPRESSION, 1), first.first(tiff.EXTRA_SAMPLES, 0)
    replaced = []
    if tiff.ORIENTATION in first.values:  # OpenCV and Pillow turn a TIFF, and no other format, on their own
        replaced.append(first.rewritten(tiff.ORIENTATION, 1))
    if extra:  # OpenCV would multiply colours by what it takes for their opacity
        replaced.append(first.rewritten(tiff.EXTRA_SAMPLES, 0))
    return Header(
        "TIFF",
        first.first(tiff.HEIGHT, 0),
        first.first(tiff.WIDTH, 0),
        first.first(tiff.SAMPLES, 1),
        first.first(tiff.BITS, 1),
        orientation=tiff.valid_orientation(first.first(tiff.ORIENTATION, 1)),
        images=images,
        palette=first.first(tiff.PHOTOMETRIC, 1) == 3,
        lossy=compression in LOSSY_IN_TIFF,
        complete=complete and all(offset + length <= len(data) for offset, length in pieces),
        preview=first.extra,
        replaced=tuple(replaced),
    )


def _bmp(data: bytes) -> Header:
    start, size = struct.unpack_from("<II", data, 10)
    if size == 12:  # OS/2
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    rows = abs(height)  # negative: stored from the top
    needed = start + (bits * width + 31) // 32 * 4 * rows if compression in (0, 3) else 0
    channels = 1 if bits <= 8 else 4 if bits == 32 else 3
    return Header("BMP", rows, width, channels, min(bits, 8), palette=bits <= 8, complete=needed <= len(data))


def _webp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 4)
    header = Header("WEBP", 0, 0, 3, images=0, complete=size + 8 <= len(data))
    place = 12
    for _ in range(MOST_PARTS):
        if place + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, place)
        inside = place + 8
        if kind == b"VP8X":
            height, width = (1 + int.from_bytes(data[at : at + 3], "little") for at in (inside + 7, inside + 4))
            header = _sized(header, height, width, alpha=bool(data[inside] & 0x10))
        elif kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, inside + 6)
            header = _sized(header, height & 0x3FFF, width & 0x3FFF)._replace(lossy=True, images=header.images + 1)
        elif kind == b"VP8L":
            (packed,) = struct.unpack_from("<I", data, inside + 1)
            header = _sized(header, 1 + (packed >> 14 & 0x3FFF), 1 + (packed & 0x3FFF), alpha=bool(packed >> 28 & 1))
            header = header._replace(images=header.images + 1)
        elif kind == b"ANMF":
            header = header._replace(images=header.images + 1)
        elif kind == b"EXIF":
            header = header._replace(orientation=tiff.orientation_of(data[inside : inside + length]))
        place = inside + length + length % 2
    return header


def _sized(header: Header, height: int, width: int, alpha: bool = False) -> Header:
    """With a size and an alpha channel, unless an earlier chunk (that of the whole canvas) has told them."""
    return header if header.height else header._replace(height=height, width=width, channels=4 if alpha else 3)


def _by_pillow(data: bytes) -> Header | None:
    image = open_by_pillow(data, BY_PILLOW)
    if image is None:
        return None
    with image:
        try:
            images = 1 + getattr(image, "is_animated", False)
            orientation = image.getexif().get(tiff.ORIENTATION, 1)
        except PILLOW_ERRORS:
            return None
        return Header(
            str(image.format),
            image.height,
            image.width,
            len(image.getbands()),
            1 if image.mode == "1" else 16 if image.mode.startswith("I") else 8,
            orientation=tiff.valid_orientation(orientation),
            images=images,
            palette=image.format == "GIF",
            lossy=image.format == "AVIF" or (image.format == "JPEG2000" and _irreversible(data)),
        )


def _irreversible(data: bytes) -> bool:
    """Whether a JPEG 2000 uses the wavelet of real numbers, which loses; the one of integers does not."""
    style = data.find(b"\xff\x52\x00")  # its marker of coding style
    return style >= 0 and data[style + 13 : style + 14] == b"\0"


def open_by_pillow(data: bytes, kinds: tuple[str, ...]) -> Image.Image | None:
    """The image of a file, not decoded yet, if it is one of ``kinds``; None where it is not, or is damaged.

    Not Image.open: that warns of large images, which are limited here by a key of their own.
    """
    Image.init()
    for kind in kinds:
        factory, accept = Image.OPEN.get(kind, (None, None))
        fits = accept is None or accept(data[:16])
        if factory is None or not fits or isinstance(fits, str):  # a string says which library is lacking
            continue
        try:
            return factory(io.BytesIO(data), "")
        except (*PILLOW_ERRORS, IndexError, TypeError, struct.error):
            return None
    return None
