"""Training and evaluation."""

from mdg.engine.evaluate import evaluate
from mdg.engine.train import train

__all__ = ["evaluate", "train"]
