"""Reading one image file, with errors that name it.

Shape suffixes: H, W are height and width in pixels, C the channels in the order OpenCV delivers them (B, G, R, A).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mdg.errors import DataError


def read_uint8(file: Path) -> np.ndarray:
    """Decodes an image to [H, W] or [H, W, C] uint8 without dropping or converting channels.

    Raises:
        DataError: No such file, not an image, a truncated image, or more than 8 bits per channel.
    """
    try:
        image = cv2.imdecode(np.fromfile(file, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); check that it is there and readable") from None
    except cv2.error:  # OpenCV raises on an empty file and returns None for every other broken one
        image = None
    if image is None:
        size = file.stat().st_size
        raise DataError(f"{file}: not a readable image ({size} bytes); it is truncated or damaged, copy it again")
    if image.dtype != np.uint8:
        raise DataError(f"{file}: got {image.dtype} values, expected 8 bits per channel; convert the image to 8 bits")
    return image


def read_rgb(file: Path) -> np.ndarray:
    """Reads a colour image as [H, W, 3] uint8 in the order R, G, B."""
    image = read_uint8(file)
    if image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"{file}: got {_channels(image)} channel(s), expected a colour image with 3")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_grey(file: Path, what: str) -> np.ndarray:
    """Reads one channel as [H, W] uint8; a 3-channel file counts where its channels are equal.

    Args:
        what: What the image holds, for the message ("thermal image").
    """
    image = read_uint8(file)
    if image.ndim == 2:
        return image
    if image.shape[2] != 3:
        raise DataError(f"{file}: got {image.shape[2]} channels, expected a {what} with 1 (or 3 equal ones)")
    if (image != image[..., :1]).any():
        raise DataError(
            f"{file}: got a colour image, expected a {what} with 1 channel (or 3 equal ones); convert "
            "pseudo-colours back to the original grey values"
        )
    return np.ascontiguousarray(image[..., 0])


def read_rgb_thermal(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads MFNet's 4-channel image: [H, W, 3] uint8 in the order R, G, B, and [H, W] uint8 thermal."""
    image = read_uint8(file)
    if image.ndim != 3 or image.shape[2] != 4:
        raise DataError(
            f"{file}: got {_channels(image)} channel(s), expected 4 (RGB and thermal in one PNG); the "
            "thermal channel was lost, for instance by a program that dropped it as transparency. Take "
            "the original file"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGB), cv2.extractChannel(image, 3)


def check_same_size(images: dict[Path, np.ndarray]) -> None:
    """Raises DataError naming the files where their heights and widths (in pixels) differ."""
    if len({image.shape[:2] for image in images.values()}) > 1:
        sizes = ", ".join(f"{file} is {image.shape[0]}x{image.shape[1]}" for file, image in images.items())
        raise DataError(f"sizes (height x width) differ: {sizes}; expected an aligned pair with a label of equal size")


def check_class_ids(file: Path, label_HW: np.ndarray, classes: int, ignore_index: int | None = None) -> None:
    """Raises DataError naming the ids that are no class (``0 .. classes - 1``) and not ``ignore_index``."""
    if label_HW.size and label_HW.max() < classes:
        return
    wrong = [int(value) for value in np.unique(label_HW) if value >= classes and value != ignore_index]
    if wrong:
        shown = ", ".join(map(str, wrong[:10])) + (" ..." if len(wrong) > 10 else "")
        raise DataError(
            f"{file}: got label ids {shown}, expected 0..{classes - 1}; use the label files of class ids, "
            "not rendered colours or a visualisation"
        )


def _channels(image: np.ndarray) -> int:
    return 1 if image.ndim == 2 else image.shape[2]
