"""Scoring rules: from one confusion matrix to the number a paper prints.

Papers average the same matrix in different ways and call all of them mIoU. A rule names one way; a data set lists the
rules under which it is published, and every result shows all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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

    def ids(self, classes: Sequence[str]) -> np.ndarray:
        """Ids of the averaged classes, int64; ``classes`` names the rows of the matrix."""
        return np.array([classes.index(name) for name in self.averaged], np.int64)

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
