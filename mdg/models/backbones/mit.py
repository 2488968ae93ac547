"""Mix Transformer (MiT) encoders of SegFormer (Xie et al., NeurIPS 2021), stepped stage by stage.

Parameter names are those of the public SegFormer weights, so that a checkpoint loads without renaming.

Legend: B batch, H W map, C width, N = H*W tokens, M tokens after spatial reduction.
"""

from __future__ import annotations

from torch import Tensor, nn

from mdg.models.backbones.layered import Layered
from mdg.models.layers import DropPath, Linear, conv_bhwc, depthwise, init_weights, to_bhwc
from mdg.models.recompute import Recomputable, run
from mdg.ops import attention
from mdg.ops.feed_forward import mix_feed_forward
from mdg.options.backbones import MixTransformerOptions
from mdg.registry import BACKBONES

VARIANTS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "b0": ((32, 64, 160, 256), (2, 2, 2, 2)),
    "b1": ((64, 128, 320, 512), (2, 2, 2, 2)),
    "b2": ((64, 128, 320, 512), (3, 4, 6, 3)),
    "b3": ((64, 128, 320, 512), (3, 4, 18, 3)),
    "b4": ((64, 128, 320, 512), (3, 8, 27, 3)),
    "b5": ((64, 128, 320, 512), (3, 6, 40, 3)),
}
HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
STAGES = (1, 2, 3, 4)


class OverlapPatchEmbed(nn.Module):
    """Strided convolution with overlapping patches, then LayerNorm: ``[B, H, W, C_in] -> [B, H/s, W/s, C]``."""

    def __init__(self, in_channels: int, width: int, patch: int, stride: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, patch, stride=stride, padding=patch // 2)
        # The released code leaves this norm and the one after spatial reduction at PyTorch's default epsilon, 1e-5.
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.norm(conv_bhwc(self.proj, x_BHWC))


class EfficientSelfAttention(nn.Module):
    """Self-attention whose keys and values come from a spatially reduced map."""

    def __init__(self, width: int, heads: int, reduction: int):
        super().__init__()
        self.heads = heads
        self.q = Linear(width, width)
        self.kv = Linear(width, 2 * width)
        self.proj = Linear(width, width)
        self.reduction = reduction
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, stride=reduction)
            self.norm = nn.LayerNorm(width)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        B, H, W, C = x_BHWC.shape
        source_BHWC = self.norm(conv_bhwc(self.sr, x_BHWC)) if self.reduction > 1 else x_BHWC
        k_BMC, v_BMC = self.kv(source_BHWC).flatten(1, 2).chunk(2, dim=-1)
        out_BNC = attention(self.q(x_BHWC).flatten(1, 2), k_BMC, v_BMC, heads=self.heads)
        return self.proj(out_BNC.view(B, H, W, C))


class DepthwiseConv(nn.Module):
    """Holds the 3x3 depthwise convolution; a module of its own only because the public weights name it so."""

    def __init__(self, width: int):
        super().__init__()
        self.dwconv = depthwise(width, 3)


class MixFeedForward(nn.Module):
    """Linear, 3x3 depthwise convolution (which carries the position), GELU, linear."""

    def __init__(self, width: int, ratio: int = 4):
        super().__init__()
        self.fc1 = Linear(width, ratio * width)
        self.dwconv = DepthwiseConv(ratio * width)
        self.fc2 = Linear(ratio * width, width)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """``fc2(gelu(dwconv(fc1(x))))``: ``[B, H, W, C] -> [B, H, W, C]``."""
        fc1, conv, fc2 = self.fc1, self.dwconv.dwconv, self.fc2
        return mix_feed_forward(x_BHWC, fc1.weight, fc1.bias, conv.weight, conv.bias, fc2.weight, fc2.bias)


class MixBlock(Recomputable):
    """Pre-norm attention and Mix-FFN with stochastic depth."""

    def __init__(self, width: int, heads: int, reduction: int, drop_path: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = EfficientSelfAttention(width, heads, reduction)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MixFeedForward(width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BHWC = x_BHWC + self.drop_path(self.attn(self.norm1(x_BHWC)))
        return x_BHWC + self.drop_path(self.mlp(self.norm2(x_BHWC)))


@BACKBONES.register(MixTransformerOptions)
class MixTransformer(Layered):
    """A MiT encoder for images of any number of channels whose sides are multiples of 32.

    Args:
        options: Variant and stochastic depth.
        in_channels: 3 for RGB, 1 for thermal.

    Attributes:
        name: By which its weights are public, ``mit_b0`` to ``mit_b5``.
        widths: Channels of the four stages; the maps have 1/4, 1/8, 1/16 and 1/32 of the input size.
    """

    def __init__(self, options: MixTransformerOptions, *, in_channels: int):
        super().__init__()
        self.name = f"mit_{options.variant}"
        self.widths, depths = VARIANTS[options.variant]
        rates = [options.drop_path_rate * block / (sum(depths) - 1) for block in range(sum(depths))]
        inputs = (in_channels, *self.widths[:-1])
        for index, stage in enumerate(STAGES):
            width = self.widths[index]
            patch, stride = (7, 4) if stage == 1 else (3, 2)
            blocks = [MixBlock(width, HEADS[index], REDUCTIONS[index], rates.pop(0)) for _ in range(depths[index])]
            self.add_module(f"patch_embed{stage}", OverlapPatchEmbed(inputs[index], width, patch, stride))
            self.add_module(f"block{stage}", nn.ModuleList(blocks))
            self.add_module(f"norm{stage}", nn.LayerNorm(width, eps=1e-6))
        self.apply(init_weights)

    def layers(self) -> list[list[str]]:
        """A layer is a block, with the patch embedding below it and the norm above it where they are there."""
        found: list[list[str]] = []
        for stage in STAGES:
            blocks = [[f"block{stage}.{place}"] for place in range(len(getattr(self, f"block{stage}")))]
            blocks[0].insert(0, f"patch_embed{stage}")
            blocks[-1].append(f"norm{stage}")
            found += blocks
        return found

    def forward_stage(self, stage: int, x_BHWC: Tensor) -> Tensor:
        """One stage: ``[B, H, W, C_in] -> [B, H', W', C_s]``, with H' = H/4 for stage 1 and H/2 for stages 2 to 4."""
        x_BHWC = getattr(self, f"patch_embed{stage}")(x_BHWC)
        for block in getattr(self, f"block{stage}"):
            x_BHWC = run(block, x_BHWC)
        return getattr(self, f"norm{stage}")(x_BHWC)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """``[B, C_in, H, W]`` -> the four maps ``[B, H_s, W_s, C_s]``, without interaction between the stages."""
        maps, x_BHWC = [], to_bhwc(image_BCHW)
        for stage in STAGES:
            x_BHWC = self.forward_stage(stage, x_BHWC)
            maps.append(x_BHWC)
        return maps
