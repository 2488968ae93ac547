"""Cross-Modal Fusion (CMF): one map out of two, once per stage.

Legend: B batch, H W map, C width.
"""

from __future__ import annotations

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdg.models.layers import (
    ConvBatchNorm,
    Linear,
    SqueezeExcitation,
    conv_bhwc,
    depthwise,
    normalization,
    normalize_bhwc,
)
from mdg.options.models import CrossModalFusionOptions
from mdg.registry import FUSIONS, Options


class MultiKernelFeedForward(nn.Module):
    """Linear, 1x1+BN, identity plus depthwise 3x3, 5x5 and 7x7, 1x1+BN, GELU, linear; all of width ``C``."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = Linear(width, width)
        self.pre = ConvBatchNorm(width, width)
        self.kernels = nn.ModuleList(depthwise(width, size) for size in (3, 5, 7))
        self.post = ConvBatchNorm(width, width)
        self.fc2 = Linear(width, width)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BHWC = self.pre(self.fc1(x_BHWC))
        x_BHWC = x_BHWC + reduce(torch.add, (conv_bhwc(kernel, x_BHWC) for kernel in self.kernels))
        return self.fc2(F.gelu(self.post(x_BHWC)))


@FUSIONS.register(CrossModalFusionOptions)
class CrossModalFusion(nn.Module):
    """CMF, the published fusion: ``z = Linear(LN(concat))``, ``MixFFN(z) + SE(z)`` (section 3 of docs/model.md)."""

    def __init__(self, options: CrossModalFusionOptions, *, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(2 * width)
        self.reduce = Linear(2 * width, width)
        self.ffn = MultiKernelFeedForward(width)
        self.excite = SqueezeExcitation(width, bias=options.squeeze_bias)
        self.output_norm = None if options.output_norm is None else normalization(options.output_norm, width)

    def forward(self, rgb_BHWC: Tensor, thermal_BHWC: Tensor) -> Tensor:
        """``F̂_r, F̂_t`` -> ``F_fuse``, all ``[B, H, W, C]``."""
        z_BHWC = self.reduce(self.norm(torch.cat([rgb_BHWC, thermal_BHWC], dim=-1)))
        fused_BHWC = self.ffn(z_BHWC) + self.excite(z_BHWC)
        return fused_BHWC if self.output_norm is None else normalize_bhwc(self.output_norm, fused_BHWC)


@FUSIONS.register()
class AddFusion(nn.Module):
    """The plain sum of the two streams; the baseline of the fusion ablation."""

    def __init__(self, options: Options, *, width: int):
        super().__init__()

    def forward(self, rgb_BHWC: Tensor, thermal_BHWC: Tensor) -> Tensor:
        return rgb_BHWC + thermal_BHWC


@FUSIONS.register()
class ConcatFusion(nn.Module):
    """LayerNorm and one linear layer on the concatenation; CMF without its two branches."""

    def __init__(self, options: Options, *, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(2 * width)
        self.reduce = Linear(2 * width, width)

    def forward(self, rgb_BHWC: Tensor, thermal_BHWC: Tensor) -> Tensor:
        return self.reduce(self.norm(torch.cat([rgb_BHWC, thermal_BHWC], dim=-1)))
