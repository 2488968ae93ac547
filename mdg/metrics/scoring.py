"""Scoring rules: from one confusion matrix to the number a paper prints.

Papers average the same matrix in different ways and call all of them mIoU. A rule names one way; a data set lists the
rules under which it is published, and every result shows all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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

    def restrict(self, confusion: ConfusionMatrix, classes: Sequence[str]) -> ConfusionMatrix:
        """The matrix without the labelled pixels of ignored classes; ``classes`` names its rows."""
        counts = confusion.counts.copy()
        counts[[classes.index(name) for name in self.ignored]] = 0
        return ConfusionMatrix(confusion.num_classes, counts)

    def means(self, confusion: ConfusionMatrix, classes: Sequence[str]) -> dict[str, float]:
        """mIoU, mAcc, mF1 over the averaged classes and the pixel accuracy, as fractions.

        Args:
            confusion: Matrix over all classes.
            classes: Names of its rows.
        """
        averaged = np.array([classes.index(name) for name in self.averaged])
        return self.restrict(confusion, classes).means(self.absent, averaged)

    def describe(self) -> str:
        """In words, for the foot of a table: "mean over 14 classes, unlabeled ignored, absent class counts 0"."""
        parts = [f"mean over {len(self.averaged)} classes"]
        if self.ignored:
            parts.append(f"{', '.join(self.ignored)} ignored")
        left_out = "absent classes (no labelled pixel) left out"
        parts.append(left_out if self.absent is None else f"an absent class counts {self.absent:g}")
        return ", ".join(parts)


def all_classes(classes: Sequence[str], name: str = "all classes") -> ScoringRule:
    """The mean over every class, absent ones left out."""
    return ScoringRule(name, tuple(classes))
