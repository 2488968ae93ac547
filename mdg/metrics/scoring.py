"""Scoring rules: from one confusion matrix to the number a paper prints, and to the scores of single images.

Papers average the same matrix in different ways and call all of them mIoU. A rule names one way; a data set lists the
rules under which it is published, and every result shows all of them. Scores of single images find the frames that a
model fails on.

Legend: N images, K classes; ``counts_KK`` has labels in rows and predictions in columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mdg.metrics.confusion import ConfusionMatrix


@dataclass(frozen=True)
class ScoringRule:
    """One way to average a confusion matrix.

    Attributes:
        name: Short name ("A", "nine classes").
        averaged: Names of the classes that take part in the means.
        ignored: Classes whose labelled pixels count nowhere (the row is dropped). A class that is merely not averaged
            still counts: as a false positive where another class is predicted on it.
        absent: What an averaged class without a labelled pixel counts, as a fraction; None leaves it out.
    """

    name: str
    averaged: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    absent: float | None = None

    def ids(self, classes: Sequence[str]) -> np.ndarray:
        """Ids of the averaged classes, int64; ``classes`` names the rows of the matrix."""
        return np.array([classes.index(name) for name in self.averaged], np.int64)

    def restrict(self, confusion: ConfusionMatrix, classes: Sequence[str]) -> ConfusionMatrix:
        """The matrix without the labelled pixels of ignored classes; ``classes`` names its rows."""
        counts = confusion.counts.copy()
        counts[[classes.index(name) for name in self.ignored]] = 0
        return ConfusionMatrix(confusion.num_classes, counts)

    def leaves_out(self, label: Tensor, classes: Sequence[str], ignore_index: int) -> Tensor:
        """True where a pixel counts nowhere: it has no label, or that of an ignored class; class ids of any shape."""
        ids = [ignore_index, *(classes.index(name) for name in self.ignored)]
        return torch.isin(label, torch.tensor(ids, device=label.device, dtype=label.dtype))

    def means(self, confusion: ConfusionMatrix, classes: Sequence[str]) -> dict[str, float]:
        """mIoU, mAcc, mF1 over the averaged classes and the pixel accuracy, as fractions.

        Args:
            confusion: Matrix over all classes.
            classes: Names of its rows.
        """
        return self.restrict(confusion, classes).means(self.absent, self.ids(classes))

    @property
    def absent_text(self) -> str:
        """In words, what an averaged class without a labelled pixel counts."""
        if self.absent is None:
            return "absent classes (no labelled pixel) left out"
        return f"an absent class counts {self.absent:g}"

    def describe(self) -> str:
        """In words, for the foot of a table: "mean over 14 classes, unlabeled ignored, an absent class counts 0"."""
        return rule_text(self.averaged, self.ignored, self.absent_text)

    def as_dict(self) -> dict[str, Any]:
        """The rule as plain values, for JSON."""
        return {
            "description": self.describe(),
            "averaged": list(self.averaged),
            "ignored": list(self.ignored),
            "absent": self.absent,
        }


def rule_text(averaged: Sequence[str], ignored: Sequence[str], absent_text: str) -> str:
    """A scoring rule in words, from its parts."""
    left_out = [f"{', '.join(ignored)} ignored"] if ignored else []
    return ", ".join([f"mean over {len(averaged)} classes", *left_out, absent_text])


def all_classes(classes: Sequence[str], name: str = "all classes") -> ScoringRule:
    """The mean over every class, absent ones left out."""
    return ScoringRule(name, tuple(classes))


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


def image_pixels(counts_KK: np.ndarray, rule: ScoringRule, classes: Sequence[str]) -> np.ndarray:
    """Pixels of every class of one image that are right, labelled and predicted under a rule, int64 ``[K, 3]``; summed
    over images they give the IoU of the split. Arguments as of :func:`score_image`."""
    counts = rule.restrict(ConfusionMatrix(len(classes), counts_KK), classes).counts
    return np.stack([np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)], axis=-1)


def image_scores(rows_NS: np.ndarray) -> ImageScores:
    """Takes apart rows of :func:`score_image`, float64 ``[N, K + 2]``."""
    return ImageScores(rows_NS[:, :-2], rows_NS[:, -2], rows_NS[:, -1])
