"""The pixels of every image and class, from which the score of any draw of the images follows.

Legend: N images, K classes, S draws; 3: pixels that are right, labelled, predicted.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mdg.errors import ConfigError
from mdg.utils.files import explained

COUNTS = "counts.csv"
PIXELS = ("right", "labelled", "predicted")


@dataclass(frozen=True)
class ImageCounts:
    """Pixels of every image of one result, from which its mIoU and that of any draw of its images follow.

    Attributes:
        names: Names of the images.
        counts_NK3: int64, per image and averaged class the pixels that are right, labelled and predicted.
        absent: What a class without a labelled pixel counts, as a fraction; None leaves it out.
    """

    names: tuple[str, ...]
    counts_NK3: np.ndarray
    absent: float | None

    def miou(self, weight_SN: np.ndarray) -> np.ndarray:
        """mIoU ``[S]`` as fractions, float64, where image n counts ``weight_SN[:, n]`` times."""
        K = self.counts_NK3.shape[1]
        summed_SK3 = (weight_SN.astype(np.float64) @ self.counts_NK3.reshape(len(self.names), -1)).reshape(-1, K, 3)
        right_SK, labelled_SK, predicted_SK = np.moveaxis(summed_SK3, -1, 0)
        union_SK = labelled_SK + predicted_SK - right_SK
        iou_SK = np.divide(right_SK, union_SK, out=np.zeros_like(union_SK), where=union_SK > 0)
        present_SK = labelled_SK > 0
        if self.absent is not None:
            return np.where(present_SK, iou_SK, self.absent).mean(axis=1)
        return (iou_SK * present_SK).sum(axis=1) / np.maximum(present_SK.sum(axis=1), 1)


def read_counts(file: Path, averaged: Sequence[str], absent: float | None) -> ImageCounts | None:
    """Reads ``counts.csv``; None where there is none, as beside results of older versions.

    Args:
        file: The file.
        averaged: Names of the averaged classes.
        absent: What an averaged class without a labelled pixel counts.

    Raises:
        ConfigError: A file that is not what an evaluation writes.
    """
    if not file.is_file():
        return None
    with explained(file), open(file, encoding="utf-8", errors="surrogateescape", newline="") as stream:
        rows = list(csv.reader(stream))
    try:
        header, *lines = rows
        columns = [[header.index(f"{name} {part}") for part in PIXELS] for name in averaged]
        counts = [[[int(line[place]) for place in places] for places in columns] for line in lines]
        names = tuple(line[0] for line in lines)
    except (ValueError, IndexError) as error:
        raise ConfigError(f"{file}: not what an evaluation writes ({error}); score the run again") from None
    return ImageCounts(names, np.array(counts, np.int64).reshape(len(lines), len(columns), 3), absent)
