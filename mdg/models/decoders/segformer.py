"""The all-MLP decoder of SegFormer (Xie et al., NeurIPS 2021): baseline decoder and auxiliary heads."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mdg.models.layers import Linear, MultiScaleHead, init_weights
from mdg.options.models import SegFormerDecoderOptions
from mdg.registry import DECODERS


@DECODERS.register(SegFormerDecoderOptions)
class SegFormerDecoder(nn.Module):
    """One linear layer per stage, then the common multi-scale head.

    Args:
        options: Width and dropout.
        widths: ``C_1 .. C_4``.
        num_classes: ``K``.
    """

    def __init__(self, options: SegFormerDecoderOptions, *, widths: Sequence[int], num_classes: int):
        super().__init__()
        self.linear = nn.ModuleList(Linear(width, options.embed_dim) for width in widths)
        self.head = MultiScaleHead(len(widths), options.embed_dim, num_classes, options.dropout)
        self.apply(init_weights)

    def forward(self, maps_BHWC: Sequence[Tensor]) -> Tensor:
        """Maps ``[B, H_s, W_s, C_s]``, finest first -> logits ``[B, K, H_1, W_1]``."""
        return self.head(maps_BHWC, self.linear)
