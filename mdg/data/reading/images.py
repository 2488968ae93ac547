"""Reading one image file: the one policy for training, checking and inference, with errors that name the file.

- An image is turned as its EXIF orientation says, whatever its format, as every viewer does.
- A file of several pages or frames is refused; previews inside a file do not count.
- A file that ends early is refused, never filled up.
- What is larger than the limits of :mod:`mdg.utils.limits` is refused before it is decoded.
- What is taken for an image and is none is recognised by its first bytes and its suffix, and the error says what it is.

Shape suffixes: H, W are height and width in pixels, C the channels in the order OpenCV delivers them (B, G, R, A).
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from mdg.data.reading.headers import Header, parse_header
from mdg.errors import KEYS, DataError, MachineError, Wording
from mdg.utils.limits import limit, require_within

FRAMES = "take single frames out of it, for instance with ffmpeg -i FILE %05d.png"
FETCH = "give the image itself, or copy it again"
RADIOMETRIC = "export its frames as 16-bit PNG or TIFF with the program of the camera's maker"
CONVERT = "convert it to PNG"

# First bytes (at an offset), what they belong to, what to do.
SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"version https://git-lfs", "a pointer of Git LFS in place of the file", "get the file with git lfs pull"),
    (0, b"FFF\0", "a recording of a FLIR camera", RADIOMETRIC),
    (0, b"\x1aE\xdf\xa3", "a video (Matroska or WebM)", FRAMES),
    (8, b"AVI ", "a video (AVI)", FRAMES),
    (0, b"FLV\x01", "a video (Flash)", FRAMES),
    (0, b"0&\xb2u\x8ef\xcf\x11", "a video or sound (Windows Media)", FRAMES),
    (0, b"\0\0\x01\xba", "a video (MPEG)", FRAMES),
    (0, b"\0\0\x01\xb3", "a video (MPEG)", FRAMES),
    (8, b"WAVE", "a sound", FETCH),
    (0, b"ID3", "a sound", FETCH),
    (0, b"fLaC", "a sound", FETCH),
    (0, b"OggS", "a sound or video (Ogg)", FRAMES),
    (0, b"MThd", "a sound", FETCH),
    (4, b"ftypheic", "a HEIC photo", CONVERT),
    (4, b"ftypheix", "a HEIC photo", CONVERT),
    (4, b"ftypmif1", "a HEIF photo", CONVERT),
    (4, b"ftypcrx", "a raw photo", CONVERT),
    (4, b"ftypM4A", "a sound", FETCH),
    (0, b"v/1\x01", "an OpenEXR image", "convert it to PNG or TIFF"),
    (0, b"8BPS", "a file of Photoshop", CONVERT),
    (0, b"%PDF", "a PDF", CONVERT),
    (0, b"PK\x03\x04", "a ZIP archive (or a document in one)", "unpack it"),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it"),
    (0, b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (0, b"Rar!", "a RAR archive", "unpack it"),
    (0, b"\x93NUMPY", "a NumPy array", "write it as 16-bit PNG or as TIFF"),
    (0, b"\x89HDF", "an HDF5 file", "write the array in it as PNG or TIFF"),
    (0, b"MATLAB", "a file of MATLAB", "write the array in it as PNG or TIFF"),
    (0, b"SQLite", "a database", FETCH),
    (128, b"DICM", "a DICOM file", "convert it to PNG or TIFF"),
)
BY_SUFFIX: tuple[tuple[tuple[str, ...], str, str], ...] = (
    ((".mp4", ".mov", ".avi", ".mkv", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".webm", ".h264"), "a video", FRAMES),
    ((".seq", ".csq", ".ats", ".ptw", ".sfmov", ".ravi"), "a recording of a thermal camera", RADIOMETRIC),
    ((".mp3", ".wav", ".flac", ".m4a", ".aac"), "a sound", FETCH),
    ((".heic", ".heif"), "a HEIC photo", CONVERT),
    ((".dng", ".cr2", ".nef", ".arw", ".raw", ".raf"), "a raw photo", CONVERT),
)
IMAGES = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF"}
IMAGES |= {b"BM": "BMP", b"GIF8": "GIF", b"\0\0\0\x0cjP": "JPEG 2000"}


def describe_foreign(head: bytes, suffix: str) -> str | None:
    """What a file is and what to do, as "it is ...; ..."; None where nothing tells, or where it begins as an image.

    Args:
        head: First bytes of the file, at least 512 where it has so many.
        suffix: Of its name, with the dot.
    """
    if not head:
        return "it is empty; copy it again"
    for place, mark, what, advice in SIGNATURES:
        if head[place : place + len(mark)] == mark:
            return f"it is {what}; {advice}"
    if head[4:8] == b"ftyp" and head[8:11] != b"avi":
        return f"it is a video (MP4 or QuickTime); {FRAMES}"
    if image_kind(head) is not None:
        return None
    if not any(head):
        return "it begins with zeros only, as a copy that was never finished does; copy it again"
    for suffixes, what, advice in BY_SUFFIX:
        if suffix.lower() in suffixes:
            return f"it is {what}, by its suffix; {advice}"
    return _describe_text(head)


def image_kind(head: bytes) -> str | None:
    """The format of image that a file begins as."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF"
    return next((kind for mark, kind in IMAGES.items() if head.startswith(mark)), None)


def _describe_text(head: bytes) -> str | None:
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head).lstrip()  # the last letter may be cut
    except UnicodeDecodeError:
        return None
    if any(not (letter.isprintable() or letter.isspace()) for letter in text) or not text:
        return None
    start = text[:200].lower()
    if start.startswith(("<!doctype", "<html")) or "<html" in start:
        return f"it is a web page, perhaps the message of a download that failed; {FETCH}"
    if "<svg" in start:
        return f"it is a drawing (SVG); {CONVERT}"
    return f"it is text; {FETCH}"


HEAD = 4096  # bytes by which a file is known
FORMATS = "PNG, JPEG, TIFF, BMP, WebP, JPEG 2000, AVIF, GIF"
GreyRGB = Literal["refuse", "repeat"]
SILENT = 0  # level of OpenCV's own messages


def read_image(file: Path) -> np.ndarray:
    """Decodes an image to [H, W] or [H, W, C] of the dtype it is stored in, without dropping or converting channels.

    Raises:
        DataError: No such file, not an image, a truncated one, several images in one file, or one beyond the limits.
    """
    return decode(*open_image(file), file)


def open_image(file: Path) -> tuple[bytes, Header]:
    """The bytes of an image file as decoders want them, and its header, when it is one image, whole and within the
    limits; raises as :func:`read_image`."""
    data = _read_bytes(file)
    header = parse_header(data)
    if header is None:
        raise unreadable(file, data)
    require_within("image_pixels", header.height * header.width, file, DataError)
    if not header.complete:
        raise _truncated(file, header.kind, len(data))
    if header.preview:
        raise DataError(f"{file}: its first image is a preview of another one; save that one as PNG or TIFF")
    if header.images > 1:
        raise DataError(
            f"{file}: got several pages or frames in one {header.kind} file, expected one image; save the one that is "
            "meant as a file of its own"
        )
    if header.kind == "TIFF" and (header.channels == 2 or header.channels > 4):  # OpenCV would leave some out
        raise DataError(f"{file}: got {header.channels} channels, expected 1, 3 or 4; save those that are meant")
    if header.replaced:
        changed = bytearray(data)
        for place, content in header.replaced:
            changed[place : place + len(content)] = content
        data = bytes(changed)
    return data, header


def decode(data: bytes, header: Header, file: Path) -> np.ndarray:
    """Decodes what :func:`open_image` gave, upright; raises DataError where the data are damaged."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MachineError(f"{file}: not enough memory for {header.height}x{header.width} pixels") from None
        image = None
    if image is None:
        raise damaged(file, data, header)
    return upright(image, header.orientation)


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """[H, W, ...] as it is meant to be seen; ``orientation`` is that of EXIF, 1..8."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def unreadable(file: Path, data: bytes) -> DataError:
    """The error of a file that is there and cannot be decoded: what it is instead, or that it is damaged."""
    foreign = describe_foreign(data[:HEAD], file.suffix)
    if foreign is not None:
        return DataError(f"{file}: not a readable image ({len(data)} bytes): {foreign}. Images are {FORMATS}")
    kind = image_kind(data[:HEAD])
    if kind is not None:
        return _truncated(file, kind, len(data))
    return DataError(
        f"{file}: not a readable image ({len(data)} bytes): it begins as none of the formats read here ({FORMATS}); "
        "convert it, or copy it again if it should be one of them"
    )


def damaged(file: Path, data: bytes, header: Header) -> DataError:
    """The error of a file whose header is right and whose pixels cannot be decoded."""
    return DataError(
        f"{file}: not a readable image ({len(data)} bytes): a {header.kind} file of {header.height}x{header.width} "
        f"pixels, {header.channels} channel(s) of {header.bits} bits, damaged or packed in a way that is not read; "
        "copy it again, or save it as PNG"
    )


def _truncated(file: Path, kind: str, size: int) -> DataError:
    return DataError(f"{file}: not a readable image ({size} bytes): a {kind} file, truncated or damaged; copy it again")


def _read_bytes(file: Path) -> bytes:
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # reading a pipe or a device might never end
            what = "a folder" if file.is_dir() else "no regular file"
            raise DataError(f"{file}: cannot be read, it is {what}; expected an image file")
        with open(file, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size <= limit("image_bytes"):
                return stream.read()
            head = stream.read(HEAD)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); check that it is there and readable") from None
    foreign = describe_foreign(head, file.suffix)
    if foreign is not None:
        raise DataError(f"{file}: not a readable image ({size} bytes): {foreign}. Images are {FORMATS}")
    require_within("image_bytes", size, file, DataError)
    raise AssertionError(file)


def read_uint8(file: Path) -> np.ndarray:
    """As :func:`read_image`, for files that must hold 8 bits per channel; raises DataError where they do not."""
    image = read_image(file)
    if image.dtype != np.uint8:
        raise DataError(f"{file}: got {image.dtype} values, expected 8 bits per channel; convert the image to 8 bits")
    return image


def read_rgb(file: Path, grey: GreyRGB = "refuse", wording: Wording = KEYS) -> np.ndarray:
    """Reads a colour image as [H, W, 3] uint8 in the order R, G, B; an alpha channel that hides nothing is dropped.

    Args:
        file: An image.
        grey: What becomes of an image of one channel: an error, or three equal channels.
        wording: How messages name the options.
    """
    image = drop_opaque_alpha(read_uint8(file))
    channels = count_channels(image)
    if channels == 1 and grey == "repeat":
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    if channels != 3:
        advice = {
            1: "; if the camera takes grey pictures (at night, say), "
            f"{wording.option('grey_rgb', 'repeat')} gives the network three equal channels",
            4: f"; the fourth, transparency, hides a part of it: save it without. Or, {wording.four_channels}",
        }.get(channels, "")
        raise DataError(f"{file}: got {channels} channel(s), expected a colour image with 3{advice}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_rgb_thermal(file: Path, wording: Wording = KEYS) -> tuple[np.ndarray, np.ndarray]:
    """Reads MFNet's 4-channel image: [H, W, 3] uint8 in the order R, G, B, and [H, W] uint8 thermal."""
    image = read_uint8(file)
    channels = count_channels(image)
    if channels != 4:
        raise DataError(
            f"{file}: got {channels} channel(s), expected 4 (RGB and thermal in one PNG); {wording.no_fourth}"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGB), cv2.extractChannel(image, 3)


def drop_opaque_alpha(image: np.ndarray) -> np.ndarray:
    """[H, W, 4] integers whose fourth channel is opaque everywhere as [H, W, 3]; any other image as it is."""
    integer = image.dtype in (np.uint8, np.uint16)
    if integer and image.ndim == 3 and image.shape[2] == 4 and (image[..., 3] == np.iinfo(image.dtype).max).all():
        return np.ascontiguousarray(image[..., :3])
    return image


def count_channels(image: np.ndarray) -> int:
    """Channels of [H, W] or [H, W, C]."""
    return 1 if image.ndim == 2 else image.shape[2]


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """OpenCV without messages of its own on files that are named anyway."""
    logging = getattr(cv2.utils, "logging", cv2)  # where OpenCV 5 keeps it, and where 4 does
    level = logging.getLogLevel()
    logging.setLogLevel(SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)
