"""Evaluation: from a checkpoint and a split to scores, their provenance, and a folder that explains them."""
