"""Scores and the protocol that travels with them."""

from mdg.metrics.confusion import ConfusionMatrix
from mdg.metrics.protocol import Protocol
from mdg.metrics.scoring import ImageScores, ScoringRule

__all__ = ["ConfusionMatrix", "ImageScores", "Protocol", "ScoringRule"]
