"""Encoders, one per modality."""

from mdg.models.backbones.mit import MixTransformer
from mdg.models.backbones.mspa import PoolingEncoder
from mdg.models.backbones.plain_vit import PlainViT
from mdg.models.backbones.timm_encoder import TimmEncoder

__all__ = ["MixTransformer", "PlainViT", "PoolingEncoder", "TimmEncoder"]
