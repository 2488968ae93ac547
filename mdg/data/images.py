"""Reading one image file, with errors that name it.

Shape suffixes: H, W are height and width in pixels, C the channels in the order OpenCV delivers them (B, G, R, A).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mdg.errors import DataError


def read_image(file: Path) -> np.ndarray:
    """Decodes an image to [H, W] or [H, W, C] of the dtype it is stored in, without dropping or converting channels.

    Raises:
        DataError: No such file, not an image, or a truncated image.
    """
    try:
        image = cv2.imdecode(np.fromfile(file, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); check that it is there and readable") from None
    except cv2.error:  # OpenCV raises on an empty file and returns None for every other broken one
        image = None
    if image is None:
        raise unreadable(file)
    return image


def unreadable(file: Path) -> DataError:
    """The error of a file that is there and is not an image."""
    size = file.stat().st_size
    return DataError(f"{file}: not a readable image ({size} bytes); it is truncated or damaged, copy it again")


def read_uint8(file: Path) -> np.ndarray:
    """As :func:`read_image`, for files that must hold 8 bits per channel; raises DataError where they do not."""
    image = read_image(file)
    if image.dtype != np.uint8:
        raise DataError(f"{file}: got {image.dtype} values, expected 8 bits per channel; convert the image to 8 bits")
    return image


def read_rgb(file: Path) -> np.ndarray:
    """Reads a colour image as [H, W, 3] uint8 in the order R, G, B; an alpha channel that hides nothing is dropped."""
    image = drop_opaque_alpha(read_uint8(file))
    if image.ndim != 3 or image.shape[2] != 3:
        advice = "; save it without transparency (MFNet's 4-channel PNGs are read by `type: MFNet`)"
        channels = count_channels(image)
        raise DataError(
            f"{file}: got {channels} channel(s), expected a colour image with 3{advice if channels == 4 else ''}"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_rgb_thermal(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads MFNet's 4-channel image: [H, W, 3] uint8 in the order R, G, B, and [H, W] uint8 thermal."""
    image = read_uint8(file)
    if image.ndim != 3 or image.shape[2] != 4:
        raise DataError(
            f"{file}: got {count_channels(image)} channel(s), expected 4 (RGB and thermal in one PNG); the "
            "thermal channel was lost, for instance by a program that dropped it as transparency. Take "
            "the original file"
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
