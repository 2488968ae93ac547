"""Scores and the protocol that travels with them."""

from mdg.metrics.confusion import ConfusionMatrix
from mdg.metrics.per_image import ImageScores
from mdg.metrics.protocol import Protocol
from mdg.metrics.scoring import ScoringRule

__all__ = ["ConfusionMatrix", "ImageScores", "Protocol", "ScoringRule"]
