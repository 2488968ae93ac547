"""Options of the loss terms."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mdg.registry import LOSSES, Options


class LossOptions(Options):
    """Options of every loss term."""

    weight: float = Field(1.0, ge=0)
    """Factor of this term in the objective."""


class CrossEntropyOptions(LossOptions):
    """Cross-entropy over labelled pixels."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target spread evenly over all classes."""
    class_weights: list[float] | Literal["auto"] | None = None
    """One weight per class; `auto` counts the labels of the train split and takes 1 / ln(1.02 + share of the pixels),
    scaled to a mean of one over the pixels; null weighs all alike."""
    mean_over: Literal["labelled", "all"] = "labelled"
    """Pixels that the sum is divided by: the labelled ones, or `all` (published), ignored ones too."""


class OhemOptions(LossOptions):
    """Online hard example mining."""

    threshold: float = Field(0.7, gt=0, le=1)
    """Pixels whose true class is given less than this probability are hard."""
    min_kept: float = Field(1 / 16, gt=0, le=1)
    """Share of all pixels that is kept at least, the hardest first."""


class DiceOptions(LossOptions):
    """Soft Dice."""

    smooth: float = Field(1.0, ge=0)
    """Pixels added to numerator and denominator of each class, so that rare classes do not jump; published: 0."""
    mean_over: Literal["present", "all"] = "present"
    """Classes of the mean: those with a labelled pixel in the batch, or `all` (published), where an absent one counts
    as missed."""


LOSSES.declare(CrossEntropy=CrossEntropyOptions, OhemCrossEntropy=OhemOptions, Dice=DiceOptions)
