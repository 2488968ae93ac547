"""Encoders, one per modality."""

from mdg.models.backbones.mit import MixTransformer

__all__ = ["MixTransformer"]
