"""Losses and the objective made of them."""

from mdg.losses.objective import Objective
from mdg.losses.terms import CrossEntropy, Dice, OhemCrossEntropy

__all__ = ["CrossEntropy", "Dice", "Objective", "OhemCrossEntropy"]
