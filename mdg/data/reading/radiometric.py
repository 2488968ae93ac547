"""Radiometric JPEGs: a picture, mostly in false colours, with the temperatures beside it in the same file.

Those of FLIR cameras are read. Their segments APP1 that begin with "FLIR" make up one file of records: the counts of
the sensor, what turns counts into temperatures, and often a photograph by a second camera. The tables of ExifTool
describe them (https://exiftool.org/TagNames/FLIR.html). The package ``flyr`` computes the temperatures. Other makers
keep theirs in ways of their own; such files are told apart, so that a message can say what to do.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B.
"""

from __future__ import annotations

import importlib
import io
import struct
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mdg.data.reading.headers import (
    PILLOW_ERRORS,
    SCAN,
    Header,
    jpeg_segments,
    open_by_pillow,
    parse_header,
)
from mdg.data.reading.images import damaged, decode, open_image, upright
from mdg.errors import DataError
from mdg.utils.limits import require_within

JPEG = b"\xff\xd8\xff"
APP1, APP2, APP3 = 0xE1, 0xE2, 0xE3
FLIR = b"FLIR\0"
COUNTS, PHOTOGRAPH, CAMERA = 1, 14, 32  # types of records
BEFORE_IMAGE = 32  # bytes of a record before its image
BEFORE_DIRECTORY, ENTRY = 64, 32  # bytes before the directory of records, and of an entry of it
LITTLE_ENDIAN = b"\2\0"  # how records begin whose numbers are so
MOST_ENTRIES = 4096  # no honest file has more
MOST_PIXELS = 1 << 23  # no thermal sensor has more; flyr takes them one by one
MOST_PER_SEGMENT = 0xFFFF - 10  # bytes, beside the length and the mark of a segment
MAKE, MODEL = 271, 272  # tags of EXIF
EXPORT = "export it as a 16-bit or floating-point TIFF, or as a 16-bit PNG, with the program of the camera's maker"


def is_radiometric(file: Path) -> bool:
    """Whether a file is a JPEG of a FLIR camera with temperatures inside; False for what cannot be read."""
    if not file.is_file():  # a pipe would keep its reader waiting
        return False
    try:
        with open(file, "rb") as stream:
            if stream.read(len(JPEG)) != JPEG:  # most files that are asked for are not, and none is read twice for it
                return False
        return _holds_counts(_records(open_image(file)[0]))
    except (DataError, OSError):
        return False
    except struct.error:
        return True  # it would be one, were it whole


def read_celsius(data: bytes, header: Header, file: Path) -> np.ndarray | None:
    """Temperatures in degrees Celsius, ``[H, W]`` float32, turned as the picture; None where there are none inside.

    H and W are those of the sensor, which the picture around it may exceed.

    Args:
        data, header: Of a JPEG, as :func:`mdg.data.reading.images.open_image` gives them.
        file: For messages.

    Raises:
        DataError: ``flyr`` is not installed, or cannot read what is inside.
    """
    try:
        records = _records(data)
    except struct.error:
        raise _undecodable(file, data, "they are damaged, as by a program that wrote the picture anew") from None
    if not _holds_counts(records):
        return None
    assert records is not None
    celsius_HW = _decode(records, file, data)
    if not np.isfinite(celsius_HW).all():
        raise _undecodable(file, data, "some come out as no finite number")
    return upright(celsius_HW, header.orientation)


def read_embedded_visible(file: Path) -> np.ndarray:
    """The photograph inside a radiometric JPEG of a FLIR camera, ``[H, W, 3]`` uint8, turned as the picture.

    Its lens mostly sees more than the thermal one.

    Raises:
        DataError: No such JPEG, one without a photograph, or one that cannot be decoded.
    """
    data, header = open_image(file)
    try:
        records = _records(data) if header.kind == "JPEG" else None
    except struct.error:
        raise _undecodable(file, data, "the records are damaged") from None
    if records is None or PHOTOGRAPH not in records:
        what = "no radiometric JPEG of a FLIR camera" if records is None else "holds temperatures and no photograph"
        raise DataError(f"{file}: {what}; expected one with a visible image inside. Give the RGB image as a file")
    content = records[PHOTOGRAPH][BEFORE_IMAGE:]
    inner = parse_header(content)
    if inner is None or inner.kind not in ("PNG", "JPEG") or inner.bits != 8 or inner.channels != 3:
        raise DataError(f"{file}: its visible image is kept in a form that is not read; give the RGB image as a file")
    require_within("image_pixels", inner.height * inner.width, file, DataError)
    if not inner.complete:
        raise damaged(file, content, inner)
    turn = inner.orientation if inner.orientation != 1 else header.orientation
    image = decode(content, inner._replace(orientation=turn), file)
    if inner.kind == "JPEG":
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    # These PNGs hold Y, Cb, Cr in place of R, G, B.
    return cv2.cvtColor(np.ascontiguousarray(image[..., [2, 0, 1]]), cv2.COLOR_YCrCb2RGB)


def describe_origin(data: bytes) -> str | None:
    """Which camera wrote a JPEG whose temperatures are not read, and what to do, for a message on its false colours:
    "a radiometric JPEG of ...: ..."; None where nothing tells."""
    try:
        segments = list(jpeg_segments(data)) if data.startswith(JPEG) else []
    except (struct.error, IndexError):
        return None
    make, model = _camera(data)
    if make.upper() == "DJI" and any(marker == APP3 for marker, _, _ in segments):
        programs = "the DJI Thermal Analysis Tool or the DJI Thermal SDK"
        return f"a radiometric JPEG of a DJI camera ({model}): export its temperatures as TIFF with {programs}"
    if any(marker == APP2 and data[place + 4 : place + 10] == b"IJPEG\0" for marker, place, _ in segments):
        return "a radiometric JPEG of an InfiRay camera: export its temperatures with the maker's program"
    if make.upper().startswith("HIK"):
        return f"a JPEG of a HIKMICRO camera ({model}): export its temperatures with HIKMICRO Analyzer"
    if segments and segments[-1][0] == SCAN:
        rest = len(data) - 2 - data.find(b"\xff\xd9", segments[-1][1])
        if rest > BEFORE_DIRECTORY:
            return (
                f"a JPEG with {rest} bytes after the picture, where some cameras (HTI, for one) keep temperatures in "
                "forms of their own: export them with the program of the camera's maker"
            )
    return None


def _camera(data: bytes) -> tuple[str, str]:
    """Make and model by EXIF; "model unknown" where it is silent."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = open_by_pillow(data, ("JPEG",))
            exif: Any = {} if image is None else image.getexif()
        make, model = (str(exif.get(tag, "")).strip("\0 ") for tag in (MAKE, MODEL))
    except (*PILLOW_ERRORS, struct.error, KeyError, IndexError, TypeError):
        make, model = "", ""
    return make, model or "model unknown"


def _undecodable(file: Path, data: bytes, why: str) -> DataError:
    make, model = _camera(data)
    return DataError(
        f"{file}: a FLIR radiometric JPEG ({' '.join(filter(None, [make, model]))}) whose temperatures cannot be read: "
        f"{why}; {EXPORT}"
    )


def _holds_counts(records: dict[int, bytes] | None) -> bool:
    return records is not None and COUNTS in records


def _records(data: bytes) -> dict[int, bytes] | None:
    """What a FLIR camera put into a JPEG, by type; None where there is nothing.

    Raises:
        struct.error: Something is missing or lies beyond the end.
    """
    pieces: dict[int, bytes] = {}
    last = 0
    for marker, place, end in jpeg_segments(data):
        if marker == APP1 and data[place : place + 5] == FLIR and end - place >= 8:
            number, last = data[place + 6], data[place + 7]
            pieces.setdefault(number, data[place + 8 : end])
    if not pieces:
        return None
    if set(pieces) != set(range(last + 1)):
        raise struct.error(f"got {len(pieces)} of {last + 1} pieces")
    return _by_type(b"".join(pieces[number] for number in range(last + 1)))


def _by_type(content: bytes) -> dict[int, bytes]:
    # The version, 100 to 199, tells the order of bytes: cameras differ, DJI's with a sensor by FLIR among them.
    order = next((o for o in "><" if 100 <= struct.unpack_from(f"{o}I", content, 20)[0] < 200), None)
    if content[:4] not in (b"FFF\0", b"AFF\0") or order is None:
        raise struct.error("no records")
    place, entries = struct.unpack_from(f"{order}II", content, 24)
    if entries > MOST_ENTRIES:
        raise struct.error(f"{entries} records")
    records: dict[int, bytes] = {}
    for at in range(place, place + entries * ENTRY, ENTRY):
        kind, offset, length = struct.unpack_from(f"{order}H10xII", content, at)
        if kind and offset + length > len(content):
            raise struct.error(f"record {kind} ends beyond the end")
        if kind:
            records.setdefault(kind, content[offset : offset + length])
    return records


def _decode(records: dict[int, bytes], file: Path, data: bytes) -> np.ndarray:
    """``[H, W]`` float32 by ``flyr``, as stored."""
    try:
        flyr = importlib.import_module("flyr")
    except ImportError:
        raise DataError(
            f"{file}: this is a FLIR radiometric JPEG, the temperatures are inside; `pip install flyr` reads them (or "
            f"{EXPORT})"
        ) from None
    counts = records[COUNTS]
    if len(counts) < BEFORE_IMAGE or counts[:2] != LITTLE_ENDIAN or CAMERA not in records:
        raise _undecodable(file, data, "they are kept in a form that is not read")
    width, height = struct.unpack_from("<HH", counts, 2)
    inner = parse_header(counts[BEFORE_IMAGE:]) if counts[BEFORE_IMAGE:].startswith(b"\x89PNG") else None
    if not 0 < width * height <= MOST_PIXELS or (inner and (inner.width, inner.height) != (width, height)):
        raise _undecodable(file, data, f"they claim {height}x{width} pixels")
    try:
        with np.errstate(all="ignore"):
            thermogram = flyr.unpack(io.BytesIO(_as_flyr_expects(counts, records[CAMERA])))
            # FLIR's formula has one way through the air, of the distance to the object. That of flyr, which leaves room
            # for a window half-way, comes to the way of twice the distance.
            distance = thermogram.metadata["object_distance"] / 2
            return thermogram.adjust_metadata(object_distance=distance).celsius.astype(np.float32)
    except Exception as error:  # a stranger's bytes in a library that checks few of them
        raise _undecodable(file, data, f"flyr fails on them with {type(error).__name__} ({error})") from None


def _as_flyr_expects(counts: bytes, camera: bytes) -> bytes:
    """A JPEG with these two records.

    Not the file itself: flyr takes every directory for a big-endian one, counts its entries from the begin of the file
    on, of which two are no entries, and would decode whatever else is inside without a limit.
    """
    begins = BEFORE_DIRECTORY + 2 * ENTRY
    content = struct.pack(">4s16xIII32x", b"FFF\0", 101, BEFORE_DIRECTORY, 2 + 2)
    content += struct.pack(">HHIIII12x", COUNTS, 1, 100, 1, begins, len(counts))
    content += struct.pack(">HHIIII12x", CAMERA, 1, 100, 2, begins + len(counts), len(camera))
    content += counts + camera
    pieces = [content[at : at + MOST_PER_SEGMENT] for at in range(0, len(content), MOST_PER_SEGMENT)]
    picture = cv2.imencode(".jpg", np.zeros((1, 1), np.uint8))[1].tobytes()
    segments = [
        struct.pack(">HH5s3B", 0xFF00 | APP1, len(piece) + 10, FLIR, 1, number, len(pieces) - 1) + piece
        for number, piece in enumerate(pieces)
    ]
    return picture[:2] + b"".join(segments) + picture[2:]
