"""Scores of single images, to find the frames a model fails on.

Legend: N images, K classes; ``counts_KK`` has labels in rows and predictions in columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdg.metrics.confusion import ConfusionMatrix
from mdg.metrics.scoring import ScoringRule


@dataclass(frozen=True)
class ImageScores:
    """Scores of every image of a split as fractions, float64, in the order of the data set; NaN where nothing counts.

    They follow the scoring rule in which labelled pixels are ignored and which classes are averaged, but not in what
    is absent: here a class counts where it is in the label *or the prediction* of the image, so a class that is
    predicted and not there scores 0. The mean over the images is therefore not the mIoU of the split.

    Attributes:
        iou_NK: IoU per class; NaN for a class in neither, and for one that the rule ignores.
        miou_N: Mean over the averaged classes in either.
        accuracy_N: Share of the counted pixels that are right.
    """

    iou_NK: np.ndarray
    miou_N: np.ndarray
    accuracy_N: np.ndarray

    def worst(self, count: int) -> list[int]:
        """Places of the ``count`` images with the lowest mIoU, worst first; those without a score are left out."""
        order = np.argsort(self.miou_N, kind="stable")  # NaN last
        return [int(place) for place in order[:count] if np.isfinite(self.miou_N[place])]


def score_image(counts_KK: np.ndarray, rule: ScoringRule, classes: Sequence[str]) -> np.ndarray:
    """IoU of every class, then mIoU and pixel accuracy of one image, float64 ``[K + 2]``; see :class:`ImageScores`.

    Args:
        counts_KK: The matrix of the image.
        rule: Which labelled pixels are ignored and which classes are averaged.
        classes: Names of the rows.
    """
    confusion = rule.restrict(ConfusionMatrix(len(classes), counts_KK), classes)
    true_K = np.diag(confusion.counts).astype(np.float64)
    union_K = confusion.counts.sum(axis=0) + confusion.counts.sum(axis=1) - true_K
    iou_K = np.divide(true_K, union_K, out=np.full(len(classes), np.nan), where=union_K > 0)
    iou_K[[classes.index(name) for name in rule.ignored]] = np.nan
    averaged = iou_K[rule.ids(classes)]
    mean = averaged[np.isfinite(averaged)].mean() if np.isfinite(averaged).any() else np.nan
    return np.array([*iou_K, mean, confusion.pixel_accuracy()])


def image_scores(rows_NS: np.ndarray) -> ImageScores:
    """Takes apart rows of :func:`score_image`, float64 ``[N, K + 2]``."""
    return ImageScores(rows_NS[:, :-2], rows_NS[:, -2], rows_NS[:, -1])
