"""Interaction and fusion of CMX (Zhang et al., IEEE T-ITS 2023), a rival of MDG.

Legend: B batch, H W map, C width, h heads, d head dimension, P = H*W positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdg.errors import ConfigError
from mdg.models.interaction.exchange import InteractionOutput
from mdg.models.layers import Linear, conv_bhwc, depthwise, to_bchw, to_bhwc
from mdg.models.recompute import Recomputable
from mdg.options.models import FeatureFusionOptions, FeatureRectificationOptions
from mdg.registry import FUSIONS, INTERACTIONS


@INTERACTIONS.register(FeatureRectificationOptions)
class FeatureRectification(Recomputable):
    """The cross-modal feature rectification module (FRM, section III-B): each stream gets a share of the other one,
    weighted per channel and per position by gates that see both.

    Args:
        options: Shares of the two gates.
        width: Channels ``C`` of both streams.
    """

    def __init__(self, options: FeatureRectificationOptions, *, width: int):
        super().__init__()
        self.channel_share, self.spatial_share = options.channel_share, options.spatial_share
        self.channel_gate = nn.Sequential(Linear(4 * width, 4 * width), nn.ReLU(), Linear(4 * width, 2 * width))
        self.spatial_gate = nn.Sequential(Linear(2 * width, width), nn.ReLU(), Linear(width, 2))

    def forward(self, rgb_BHWC: Tensor, thermal_BHWC: Tensor) -> InteractionOutput:
        both = torch.cat([rgb_BHWC, thermal_BHWC], dim=-1)
        pooled = torch.cat([both.mean(dim=(1, 2)), both.amax(dim=(1, 2))], dim=-1)
        channel = torch.sigmoid(self.channel_gate(pooled))[:, None, None].chunk(2, dim=-1)
        spatial = torch.sigmoid(self.spatial_gate(both)).chunk(2, dim=-1)
        gates = [self.channel_share * c + self.spatial_share * s for c, s in zip(channel, spatial, strict=True)]
        return InteractionOutput(rgb_BHWC + gates[1] * thermal_BHWC, thermal_BHWC + gates[0] * rgb_BHWC)


class CrossAttention(nn.Module):
    """Efficient cross-attention of FFM: the queries of one stream read the ``d x d`` context of the other."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.key_value = nn.ModuleList(Linear(width, 2 * width, bias=False) for _ in range(2))

    def _context(self, layer: nn.Module, u_BPC: Tensor) -> Tensor:
        k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in layer(u_BPC).chunk(2, dim=-1))
        return (self.scale * (k.transpose(-1, -2) @ v)).softmax(dim=-2)

    def forward(self, rgb_BPC: Tensor, thermal_BPC: Tensor) -> tuple[Tensor, Tensor]:
        inputs = (rgb_BPC, thermal_BPC)
        contexts = [self._context(layer, u) for layer, u in zip(self.key_value, inputs, strict=True)]
        queries = [u.unflatten(-1, (self.heads, -1)).transpose(1, 2) for u in inputs]
        out = [q @ context for q, context in zip(queries, reversed(contexts), strict=True)]
        return out[0].transpose(1, 2).flatten(2), out[1].transpose(1, 2).flatten(2)


@FUSIONS.register(FeatureFusionOptions)
class FeatureFusion(nn.Module):
    """The feature fusion module (FFM, section III-C): exchange by cross-attention, then a mixed channel embedding.

    Args:
        options: Heads per stage.
        stage: 1 to 4.
        width: Channels ``C`` of both streams.
    """

    def __init__(self, options: FeatureFusionOptions, *, stage: int, width: int):
        super().__init__()
        heads = options.heads[stage - 1]
        if width % heads:
            raise ConfigError(f"model.fusion.heads: {heads} heads do not divide the {width} channels")
        self.enter = nn.ModuleList(Linear(width, 2 * width) for _ in range(2))
        self.attention = CrossAttention(width, heads)
        self.leave = nn.ModuleList(Linear(2 * width, width) for _ in range(2))
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.residual = Linear(2 * width, width, bias=False)
        self.reduce = Linear(2 * width, width)
        self.conv = depthwise(width, 3)
        self.expand = Linear(width, width)
        self.embed_norm = nn.BatchNorm2d(width)
        self.out_norm = nn.BatchNorm2d(width)

    def forward(self, rgb_BHWC: Tensor, thermal_BHWC: Tensor) -> Tensor:
        """``F_r, F_t`` -> one map, all ``[B, H, W, C]``."""
        size, inputs = rgb_BHWC.shape[1:3], (rgb_BHWC.flatten(1, 2), thermal_BHWC.flatten(1, 2))
        own, sent = zip(
            *(F.relu(layer(x)).chunk(2, dim=-1) for layer, x in zip(self.enter, inputs, strict=True)), strict=True
        )
        met = self.attention(*sent)
        merged_BP2C = torch.cat(
            [
                self.norm[i](inputs[i] + self.leave[i](torch.cat([own[i], met[i]], dim=-1)))
                for i in range(2)
            ],
            dim=-1,
        )  # fmt: skip
        merged = merged_BP2C.unflatten(1, size)
        embedded = self.expand(F.relu(conv_bhwc(self.conv, self.reduce(merged))))
        total = to_bchw(self.residual(merged)) + self.embed_norm(to_bchw(embedded))
        return to_bhwc(self.out_norm(total))
