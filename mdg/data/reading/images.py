"""Reading one image file: the one policy for training, checking and inference, with errors that name the file.

- An image is turned as its EXIF orientation says, whatever its format, as every viewer does.
- A file of several pages or frames is refused; previews inside a file do not count.
- A file that ends early is refused, never filled up.
- What is larger than the limits of :mod:`mdg.utils.limits` is refused before it is decoded.

Shape suffixes: H, W are height and width in pixels, C the channels in the order OpenCV delivers them (B, G, R, A).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from mdg.data.reading.headers import Header, parse_header
from mdg.data.reading.not_images import describe_foreign, image_kind
from mdg.errors import KEYS, DataError, MachineError, Wording
from mdg.options.files import GreyRGB
from mdg.utils.limits import limit, require_within

HEAD = 4096  # bytes by which a file is known
FORMATS = "PNG, JPEG, TIFF, BMP, WebP, JPEG 2000, AVIF, GIF"
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
    return open_bytes(_read_bytes(file), file)


def open_bytes(data: bytes, file: Path) -> tuple[bytes, Header]:
    """:func:`open_image` of the content of a file, which messages call ``file``."""
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
