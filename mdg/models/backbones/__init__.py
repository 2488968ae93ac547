"""Encoders, one per modality."""

from mdg.models.backbones.mit import MixTransformer
from mdg.models.backbones.mspa import PoolingEncoder

__all__ = ["MixTransformer", "PoolingEncoder"]
