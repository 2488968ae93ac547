"""Numbers of one image that add up exactly: counts of grey levels, and digests of what it shows.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B, C channels, L the 256 grey levels.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import cv2
import numpy as np

LEVELS = 256
EXACT = 1 << 24  # pixels: OpenCV hands counts over in float32, which holds whole numbers up to here


def count_levels(image: np.ndarray) -> np.ndarray:
    """[256] int64 for [H, W] uint8, [C, 256] for [H, W, C]: pixels of each grey level."""
    channels = [0] if image.ndim == 2 else range(image.shape[2])
    counts_CL = np.stack([_count_channel(image, channel) for channel in channels])
    return counts_CL[0] if image.ndim == 2 else counts_CL


def _count_channel(image: np.ndarray, channel: int) -> np.ndarray:
    # Not numpy.bincount: that copies to int64 and keeps other threads from running.
    counts_L = np.zeros(LEVELS, np.int64)
    rows = max(1, EXACT // image.shape[1])
    for top in range(0, image.shape[0], rows):
        block = np.ascontiguousarray(image[top : top + rows])
        counts_L += cv2.calcHist([block], [channel], None, [LEVELS], [0, LEVELS]).ravel().astype(np.int64)
    return counts_L


def is_constant(counts_L: np.ndarray) -> bool:
    """Whether every channel of an image has one grey level only."""
    return bool((np.count_nonzero(np.atleast_2d(counts_L), axis=1) == 1).all())


def mean_and_std(counts_L: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of grey levels as fractions of 255; NaN where nothing was counted.

    Sums are Python integers, so the one rounding is that of the result.
    """
    counts = [int(count) for count in counts_L]
    pixels = sum(counts)
    if not pixels:
        return float("nan"), float("nan")
    total = sum(level * count for level, count in enumerate(counts))
    squares = sum(level * level * count for level, count in enumerate(counts))
    return total / (255 * pixels), (pixels * squares - total * total) ** 0.5 / (255 * pixels)


class Digest(NamedTuple):
    """SHA-256 (16 bytes of it) over the size and the pixels of an image, and of its mirror image.

    Equal for files that decode to equal pixels, however they are compressed.
    """

    straight: bytes
    mirrored: bytes


def digest(image: np.ndarray) -> Digest:
    """Of an image [H, W] or [H, W, C]."""
    return Digest(_hash(np.ascontiguousarray(image)), _hash(cv2.flip(image, 1)))


def _hash(image: np.ndarray) -> bytes:
    sha = hashlib.sha256(repr((image.shape, image.dtype.str)).encode())
    sha.update(image.data)  # releases the interpreter lock
    return sha.digest()[:16]
