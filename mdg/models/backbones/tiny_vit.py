"""TinyViT (Wu et al., ECCV 2022) with a last block that attends over the whole map.

Legend: B batch, H W map, N = H*W tokens, C channels, h heads, d channels of a head.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mdg.errors import ConfigError


class WholeMapAttention(nn.Module):
    """Self-attention of all positions to all, without bias; layers and names are those of timm's windowed one.

    Args:
        windowed: timm's ``Attention`` of TinyViT, whose layers it takes over.
    """

    def __init__(self, windowed: Any):
        super().__init__()
        self.num_heads, self.key_dim, self.val_dim = windowed.num_heads, windowed.key_dim, windowed.val_dim
        self.scale = windowed.scale
        self.norm, self.qkv, self.proj = windowed.norm, windowed.qkv, windowed.proj

    def forward(self, x_BNC: Tensor) -> Tensor:
        B, N, _ = x_BNC.shape
        qkv = self.qkv(self.norm(x_BNC)).view(B, N, self.num_heads, -1).transpose(1, 2)
        q_BhNd, k_BhNd, v_BhNd = qkv.split([self.key_dim, self.key_dim, self.val_dim], dim=-1)
        out_BhNd = F.scaled_dot_product_attention(q_BhNd, k_BhNd, v_BhNd, scale=self.scale)
        return self.proj(out_BhNd.transpose(1, 2).flatten(2))


class WholeMapBlock(nn.Module):
    """A block of TinyViT without windows: attention, a depthwise convolution, a feed-forward network.

    Args:
        windowed: timm's ``TinyVitBlock``, whose layers it takes over.
    """

    def __init__(self, windowed: Any):
        super().__init__()
        self.attn = WholeMapAttention(windowed.attn)
        self.drop_path1, self.drop_path2 = windowed.drop_path1, windowed.drop_path2
        self.mlp, self.local_conv = windowed.mlp, windowed.local_conv

    def forward(self, x_BHWC: Tensor) -> Tensor:
        B, H, W, C = x_BHWC.shape
        x_BHWC = x_BHWC + self.drop_path1(self.attn(x_BHWC.flatten(1, 2)).view(B, H, W, C))
        x_BNC = self.local_conv(x_BHWC.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        return (x_BNC + self.drop_path2(self.mlp(x_BNC))).view(B, H, W, C)


def attend_globally(stage: Any, name: str) -> None:
    """Replaces the last block of a stage of timm's TinyViT, in place.

    Raises:
        ConfigError: A stage of another network.
    """
    if type(stage).__name__ != "TinyVitStage":
        raise ConfigError(
            f"global_last_block: timm's '{name}' is no TinyViT, whose last block it changes; take tiny_vit_11m_224 or "
            "tiny_vit_21m_512, or leave it out"
        )
    stage.blocks[-1] = WholeMapBlock(stage.blocks[-1])
