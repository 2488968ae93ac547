"""Decoders: four fused maps to logits at a quarter of the input size."""

from mdg.models.decoders.dual_frequency import DualFrequencyDecoder
from mdg.models.decoders.segformer import SegFormerDecoder
from mdg.models.decoders.semantic_dynamic import SemanticDynamicDecoder
from mdg.models.decoders.upernet import UperNetDecoder

__all__ = ["DualFrequencyDecoder", "SegFormerDecoder", "SemanticDynamicDecoder", "UperNetDecoder"]
