"""The encoder of the second modality in CMNeXt (Zhang et al., CVPR 2023): pooling in place of attention.

Legend: B batch, H W map, C width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdg.models.backbones.mit import STAGES, VARIANTS
from mdg.models.layers import DropPath, conv_bhwc, depthwise, init_weights, to_bchw, to_bhwc
from mdg.options.backbones import PoolingEncoderOptions
from mdg.registry import BACKBONES

POOLS = (3, 7, 11)
RATIOS = (8, 8, 4, 4)  # of the feed-forward network, per stage
LAYER_SCALE = 1e-2


class PoolingAttention(nn.Module):
    """``x + x sigmoid(Conv1x1(y + pool3 y + pool7 y + pool11 y))`` with ``y = DW7x7(x)`` (equation 2), on ``BCHW``."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = depthwise(width, 7)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.conv(x_BCHW)
        pooled = [F.avg_pool2d(y_BCHW, k, stride=1, padding=k // 2, count_include_pad=False) for k in POOLS]
        return x_BCHW + x_BCHW * torch.sigmoid(self.mix(y_BCHW + sum(pooled)))


class ChannelMix(nn.Module):
    """A gate per channel, from the pooled map through a convolution of three along the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        pooled_B1C = x_BCHW.mean(dim=(2, 3))[:, None]
        return x_BCHW * torch.sigmoid(self.conv(pooled_B1C))[:, 0, :, None, None]


class PoolingBlock(nn.Module):
    """Multi-scale pooling attention, then a Mix-FFN beside a channel gate; BatchNorm, layer scale, stochastic depth."""

    def __init__(self, width: int, ratio: int, drop_path: float):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.attn = PoolingAttention(width)
        self.channel_mix = ChannelMix()
        hidden = ratio * width
        self.mlp = nn.Sequential(
            nn.Conv2d(width, hidden, 1), depthwise(hidden, 3), nn.GELU(), nn.Conv2d(hidden, width, 1)
        )
        self.scale1, self.scale2 = (nn.Parameter(torch.full((width, 1, 1), LAYER_SCALE)) for _ in range(2))
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = x_BCHW + self.drop_path(self.scale1 * self.attn(self.norm1(x_BCHW)))
        return self.channel_mix(x_BCHW) + self.drop_path(self.scale2 * self.mlp(self.norm2(x_BCHW)))


@BACKBONES.register(PoolingEncoderOptions)
class PoolingEncoder(nn.Module):
    """The self-query hub's partner in CMNeXt, for one modality beside RGB: MiT's patch embeddings, widths and depths.

    Args:
        options: Variant and stochastic depth.
        in_channels: 3 for RGB, 1 for thermal.
    """

    def __init__(self, options: PoolingEncoderOptions, *, in_channels: int):
        super().__init__()
        self.widths, depths = VARIANTS[options.variant]
        rates = [options.drop_path_rate * block / (sum(depths) - 1) for block in range(sum(depths))]
        inputs = (in_channels, *self.widths[:-1])
        self.embed, self.blocks = nn.ModuleList(), nn.ModuleList()
        self.embed_norm, self.norm = nn.ModuleList(), nn.ModuleList()
        for index, width in enumerate(self.widths):
            patch, stride = (7, 4) if index == 0 else (3, 2)
            self.embed.append(nn.Conv2d(inputs[index], width, patch, stride=stride, padding=patch // 2))
            self.embed_norm.append(nn.LayerNorm(width, eps=1e-6))
            blocks = [PoolingBlock(width, RATIOS[index], rates.pop(0)) for _ in range(depths[index])]
            self.blocks.append(nn.Sequential(*blocks))
            self.norm.append(nn.LayerNorm(width, eps=1e-6))
        self.apply(init_weights)

    def forward_stage(self, stage: int, x_BHWC: Tensor) -> Tensor:
        """One stage: ``[B, H, W, C_in] -> [B, H', W', C_s]``, with H' = H/4 for stage 1 and H/2 for stages 2 to 4."""
        assert stage in STAGES, stage
        index = stage - 1
        x_BHWC = self.embed_norm[index](conv_bhwc(self.embed[index], x_BHWC))
        return self.norm[index](to_bhwc(self.blocks[index](to_bchw(x_BHWC))))
