"""Knowing when not to trust: probabilities that mean what they say, and pairs that are unlike the training."""
