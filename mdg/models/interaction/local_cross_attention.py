"""Local cross-attention (LCA): each modality attends to the other inside a neighbourhood, to what is *unlike* it.

Legend: B batch, H W map, C width, h heads, d head dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mdg.errors import ConfigError
from mdg.models.layers import DropPath, Linear, Mlp
from mdg.ops import neighborhood_attention
from mdg.options.models import LocalCrossAttentionOptions


def heads_of(width: int) -> int:
    """Attention heads for a width: their dimension divides it and is as near to 32 as it can be, a multiple of 8 where
    there is one, as all kernels take it."""
    dimensions = [d for d in range(1, width + 1) if width % d == 0]
    best = min(dimensions, key=lambda d: (d % 8 != 0, abs(d - 32), d))
    return width // best


class QueryKeyNorm(nn.Module):
    """Queries and keys ``[..., d]`` at a root mean square of one, times a learned gain per dimension."""

    def __init__(self, head_dim: int):
        super().__init__()
        self.query, self.key = nn.RMSNorm(head_dim, eps=1e-6), nn.RMSNorm(head_dim, eps=1e-6)

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return self.query(q).to(q.dtype), self.key(k).to(k.dtype)


class LocalCrossAttention(nn.Module):
    """Section 2.2 of docs/model.md: queries from both streams, keys and values from the other one, gated, then an MLP.

    Neighbourhood semantics are NATTEN's (Hassani et al., CVPR 2023): the window shifts inward at a border. ``qk_norm``
    follows Dehghani et al. (ViT-22B, ICML 2023), with root mean squares, ``layer_scale`` Touvron et al. (CaiT, ICCV
    2021).

    Args:
        options: Of all stages.
        stage: 1 to 4.
        width: Channels ``C`` of both streams, a multiple of the stage's heads.
    """

    def __init__(self, options: LocalCrossAttentionOptions, *, stage: int, width: int):
        super().__init__()
        heads = heads_of(width) if options.heads == "auto" else options.heads[stage - 1]
        kernel_size, drop_path = options.kernel_size[stage - 1], options.drop_path
        if width % heads:
            raise ConfigError(
                f"model.interaction.local_attention.heads: {heads} heads do not divide the {width} channels of stage "
                f"{stage}; `auto` finds some that do"
            )
        self.heads, self.kernel_size = heads, kernel_size
        self.scale = (-1 if options.negate_keys else 1) * (width // heads) ** -0.5  # negated keys are negated scores
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.query = Linear(2 * width, 2 * width)
        self.key_value = nn.ModuleList(Linear(width, 2 * width) for _ in range(2))
        self.qk_norm: nn.ModuleList | None = None
        if options.qk_norm:
            self.qk_norm = nn.ModuleList(QueryKeyNorm(width // heads) for _ in range(2))
        self.gate = Mlp(2 * width, width, 2, activation=options.gate_activation)
        self.proj = nn.ModuleList(Linear(width, width) for _ in range(2))
        self.mlp_norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.mlp = nn.ModuleList(Mlp(width, 2 * width, bias=False) for _ in range(2))
        self.drop_path = DropPath(drop_path)
        self.layer_scale: nn.ParameterList | None = None
        if options.layer_scale is not None:
            self.layer_scale = nn.ParameterList(torch.full((width,), options.layer_scale) for _ in range(4))

    def _heads(self, x_BHWC: Tensor) -> Tensor:
        return x_BHWC.unflatten(-1, (self.heads, -1))

    def _branch(self, change_BHWC: Tensor, index: int) -> Tensor:
        """What one of the four residual branches adds: its change, scaled where there are scales, or nothing."""
        if self.layer_scale is not None:
            change_BHWC = change_BHWC * self.layer_scale[index].to(change_BHWC.dtype)
        return self.drop_path(change_BHWC)

    def forward(self, rgb_BHWC: Tensor, thermal_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        """``F_r, F_t`` -> ``U_r, U_t``, all ``[B, H, W, C]``."""
        inputs = (rgb_BHWC, thermal_BHWC)
        normed = [norm(x_BHWC) for norm, x_BHWC in zip(self.norm, inputs, strict=True)]
        joint_BHW2C = torch.cat(normed, dim=-1)
        queries = self.query(joint_BHW2C).chunk(2, dim=-1)
        gates = torch.sigmoid(self.gate(joint_BHW2C)).chunk(2, dim=-1)
        keys_values = [linear(x_BHWC).chunk(2, dim=-1) for linear, x_BHWC in zip(self.key_value, normed, strict=True)]

        outputs = []
        for own, other in ((0, 1), (1, 0)):
            q, k, v = (self._heads(x_BHWC) for x_BHWC in (queries[own], *keys_values[other]))
            if self.qk_norm is not None:
                q, k = self.qk_norm[own](q, k)
            attended_BHWhd = neighborhood_attention(
                q,
                k,
                v,
                kernel_size=self.kernel_size,
                scale=self.scale,
            )
            mixed_BHWC = torch.lerp(
                inputs[own], attended_BHWhd.flatten(-2).to(inputs[own].dtype), gates[own].to(inputs[own].dtype)
            )
            out_BHWC = inputs[own] + self._branch(self.proj[own](mixed_BHWC), 2 * own)
            outputs.append(out_BHWC + self._branch(self.mlp[own](self.mlp_norm[own](out_BHWC)), 2 * own + 1))
        return outputs[0], outputs[1]
