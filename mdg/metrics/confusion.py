"""The confusion matrix, in integers, and every score that follows from it.

Legend: K classes; rows are labels, columns predictions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class ConfusionMatrix:
    """Counts of (label, prediction) pairs as int64 ``[K, K]``; exact up to 9e18 pixels.

    A class without one labelled pixel is *absent*: its IoU, accuracy, precision and F1 are NaN. What a mean does with
    NaN is the protocol's to say; :meth:`means` leaves absent classes out unless told otherwise.
    """

    def __init__(self, num_classes: int, counts: np.ndarray | None = None):
        self.num_classes = num_classes
        self.counts = np.zeros((num_classes, num_classes), np.int64) if counts is None else counts.astype(np.int64)

    def update(self, prediction: Tensor, label: Tensor, ignore_index: int = 255) -> np.ndarray:
        """Adds integer tensors of equal shape; returns the counts of this call, int64 ``[K, K]``.

        Raises:
            ValueError: Shapes that differ, or a label that is neither a class nor ignored.
        """
        if prediction.shape != label.shape:
            raise ValueError(
                f"prediction {tuple(prediction.shape)} and label {tuple(label.shape)} differ in shape; "
                "resize the logits to the label"
            )
        K = self.num_classes
        label, prediction = label.flatten().long(), prediction.flatten().long()
        valid = label != ignore_index
        label, prediction = label[valid], prediction[valid]
        if label.numel() and not (
            int(label.min()) >= 0 and int(label.max()) < K and int(prediction.min()) >= 0 and int(prediction.max()) < K
        ):
            raise ValueError(
                f"expected labels and predictions in 0..{K - 1} (or {ignore_index}, ignored), got labels up "
                f"to {int(label.max())} and predictions up to {int(prediction.max())}"
            )
        counts = torch.bincount(K * label + prediction, minlength=K * K).reshape(K, K).cpu().numpy()
        self.counts += counts
        return counts

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        return ConfusionMatrix(self.num_classes, self.counts + other.counts)

    @property
    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        true_K = np.diag(self.counts).astype(np.float64)
        labelled_K = self.counts.sum(axis=1).astype(np.float64)
        predicted_K = self.counts.sum(axis=0).astype(np.float64)
        return true_K, labelled_K, predicted_K

    def iou(self) -> np.ndarray:
        """Intersection over union per class, float64 ``[K]``."""
        true_K, labelled_K, predicted_K = self._parts
        return _ratio(true_K, labelled_K + predicted_K - true_K, labelled_K)

    def accuracy(self) -> np.ndarray:
        """Recall per class, float64 ``[K]``."""
        true_K, labelled_K, _ = self._parts
        return _ratio(true_K, labelled_K, labelled_K)

    def precision(self) -> np.ndarray:
        """Precision per class, float64 ``[K]``; 0 for a class that is labelled and never predicted."""
        true_K, labelled_K, predicted_K = self._parts
        return _ratio(true_K, np.maximum(predicted_K, 1), labelled_K)

    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall per class (the Dice score), float64 ``[K]``."""
        true_K, labelled_K, predicted_K = self._parts
        return _ratio(2 * true_K, labelled_K + predicted_K, labelled_K)

    def pixel_accuracy(self) -> float:
        """Share of the counted pixels that are right; NaN where none is counted."""
        total = self.counts.sum()
        return float(np.trace(self.counts) / total) if total else float("nan")

    def means(self, absent: float | None = None, averaged: np.ndarray | None = None) -> dict[str, float]:
        """mIoU, mAcc, mF1 and pixel accuracy as fractions.

        Args:
            absent: What an absent class counts; None leaves it out of the mean.
            averaged: Ids of the classes that take part in the means; None takes all. The pixel accuracy is of all.
        """
        chosen = slice(None) if averaged is None else averaged
        scores = {"mIoU": self.iou()[chosen], "mAcc": self.accuracy()[chosen], "mF1": self.f1()[chosen]}
        if absent is not None:
            scores = {name: np.where(np.isnan(value), absent, value) for name, value in scores.items()}
        means = {
            name: float(np.nanmean(value)) if np.isfinite(value).any() else float("nan")
            for name, value in scores.items()
        }
        return {**means, "pixel_accuracy": self.pixel_accuracy()}


def _ratio(numerator: np.ndarray, denominator: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    present = labelled > 0
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=present)
