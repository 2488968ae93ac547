"""Training and evaluation."""

from mdg.engine.evaluation.evaluate import evaluate
from mdg.engine.train import train

__all__ = ["evaluate", "train"]
