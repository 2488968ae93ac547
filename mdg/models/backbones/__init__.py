"""Encoders, one per modality."""

from mdg.models.backbones.mit import MixTransformer
from mdg.models.backbones.mspa import PoolingEncoder
from mdg.models.backbones.timm_encoder import TimmEncoder

__all__ = ["MixTransformer", "PoolingEncoder", "TimmEncoder"]
