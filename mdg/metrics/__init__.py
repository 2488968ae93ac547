"""Scores and the protocol that travels with them."""

from mdg.metrics.confusion import ConfusionMatrix
from mdg.metrics.protocol import Protocol

__all__ = ["ConfusionMatrix", "Protocol"]
