"""Pictures inside of a page that needs no other file.

Legend: H W image size, 3: R, G, B.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from mdg.utils.pages import data_uri

FULL_COLOUR = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)


@dataclass(frozen=True)
class Picture:
    """One look at a frame: title, data URI, and whether it is a map of classes, which is enlarged without blur."""

    title: str
    uri: str
    sharp: bool


def photograph(title: str, image: np.ndarray, quality: int) -> Picture:
    """An image ``[H, W, 3]`` or ``[H, W]``, uint8, as JPEG of a quality in 0..100; colour at full size, as the red of a
    single pixel would fade otherwise."""
    return Picture(title, jpeg_uri(image, quality), sharp=False)


def class_map(title: str, image_HW3: np.ndarray) -> Picture:
    """A map of classes in their colours, uint8, as PNG."""
    return Picture(title, data_uri(_encoded(image_HW3, ".png"), "png"), sharp=True)


def jpeg_uri(image: np.ndarray, quality: int) -> str:
    """The URI of :func:`photograph`."""
    return data_uri(_encoded(image, ".jpg", cv2.IMWRITE_JPEG_QUALITY, quality, *FULL_COLOUR), "jpeg")


def shown_size(image: np.ndarray, width: int) -> tuple[int, int]:
    """Height and width of an image of which no more than ``width`` pixels are shown."""
    h, w = image.shape[:2]
    return (h, w) if w <= width else (max(1, round(h * width / w)), width)


def css_colour(colour: Iterable[int]) -> str:
    """R, G, B in 0..255 as ``#rrggbb``."""
    return "#" + "".join(f"{int(part):02x}" for part in colour)


def _encoded(image: np.ndarray, ending: str, *options: int) -> bytes:
    stored = image if image.ndim == 2 else np.ascontiguousarray(image[..., ::-1])
    done, content = cv2.imencode(ending, stored, options)
    assert done, image.shape
    return content.tobytes()
