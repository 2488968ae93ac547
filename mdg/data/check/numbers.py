"""Numbers that add up exactly: grey levels and digests of one image, raw thermal values of a whole split.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B, C channels, L the 256 grey levels,
N values.
"""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction
from typing import NamedTuple

import cv2
import numpy as np

KEPT_BITS = 12  # of the 23 of a float32's fraction: 0.03 K at 300 K
LOW, HIGH = 0.1, 99.9  # per cent: the range to suggest, without dead and hot pixels


class ValueCounts:
    """How often each value occurs. Integers are counted as they are, floating point numbers to 12 bits.

    Attributes:
        values_N: float64, ascending.
        counts_N: int64.
        lowest, highest: Exact extremes; NaN without values.
    """

    def __init__(self) -> None:
        self.values_N: np.ndarray = np.empty(0)
        self.counts_N: np.ndarray = np.empty(0, np.int64)
        self.lowest = self.highest = math.nan

    @classmethod
    def of(cls, raw_HW: np.ndarray) -> ValueCounts:
        """Counts the values of one image of any numeric dtype."""
        counted = cls()
        if raw_HW.dtype.kind == "u" and raw_HW.dtype.itemsize <= 2:
            histogram = np.bincount(raw_HW.ravel())
            keys = np.flatnonzero(histogram)
            counted.values_N, counted.counts_N = keys.astype(np.float64), histogram[keys]
        else:
            keys, counted.counts_N = np.unique(_rounded(raw_HW), return_counts=True)
            counted.values_N = keys.astype(np.float64)
        counted.lowest, counted.highest = float(raw_HW.min()), float(raw_HW.max())
        return counted

    @classmethod
    def of_levels(cls, counts_L: np.ndarray) -> ValueCounts:
        """From the counts of 256 grey levels."""
        counted = cls()
        keys = np.flatnonzero(counts_L)
        counted.values_N, counted.counts_N = keys.astype(np.float64), counts_L[keys].astype(np.int64)
        if len(keys):
            counted.lowest, counted.highest = float(keys[0]), float(keys[-1])
        return counted

    def add(self, other: ValueCounts) -> None:
        """Adds the counts of another image or split."""
        if not len(other.values_N):
            return
        keys_N, place = np.unique(np.concatenate([self.values_N, other.values_N]), return_inverse=True)
        counts_N = np.zeros(len(keys_N), np.int64)
        np.add.at(counts_N, place, np.concatenate([self.counts_N, other.counts_N]))
        self.values_N, self.counts_N = keys_N, counts_N
        self.lowest = float(np.fmin(self.lowest, other.lowest))
        self.highest = float(np.fmax(self.highest, other.highest))

    @property
    def total(self) -> int:
        """Number of pixels."""
        return int(self.counts_N.sum())

    def percentile(self, per_cent: float) -> float:
        """The smallest value that at least ``per_cent`` of the pixels do not exceed; NaN without values."""
        if not self.total:
            return math.nan
        rank = max(1, math.ceil(Fraction(str(per_cent)) * self.total / 100))  # in floats 99.9 % of 8000 is above 7992
        value = float(self.values_N[np.searchsorted(np.cumsum(self.counts_N), rank)])
        return min(max(value, self.lowest), self.highest)  # rounding may lead just past the extremes

    def suggested_range(self) -> tuple[float, float] | None:
        """[0.1, 99.9] percentiles for ``thermal_scaling.range``; None where they are one value."""
        low, high = self.percentile(LOW), self.percentile(HIGH)
        return (low, high) if low < high else None


def _rounded(raw_HW: np.ndarray) -> np.ndarray:
    """Floating point numbers to the nearest float32 with a fraction of 12 bits; anything else as it is."""
    if raw_HW.dtype.kind != "f":
        return raw_HW
    dropped = np.uint32(23 - KEPT_BITS)
    bits = np.ascontiguousarray(raw_HW, np.float32).view(np.uint32)
    half = np.uint32(1) << (dropped - np.uint32(1))
    # A carry out of the fraction moves into the exponent, which is what rounding up to a power of two means.
    return ((bits + half) >> dropped << dropped).view(np.float32)


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
