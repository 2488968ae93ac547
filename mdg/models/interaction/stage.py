"""Modality Divergence Interaction (MDI): divergence mask, local cross-attention, channel Mamba, gated write-back.

Legend: B batch, H W map, C width, P = H*W, K selected positions per image, N = B*K rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mdg.models.interaction.channel_mamba import ChannelMamba, take_rows
from mdg.models.interaction.divergence import DivergenceMap, DivergenceMask
from mdg.models.interaction.local_cross_attention import LocalCrossAttention
from mdg.models.recompute import Recomputable
from mdg.options.models import InteractionOptions
from mdg.registry import INTERACTIONS


class InteractionOutput(NamedTuple):
    """``F̂_r``, ``F̂_t`` ``[B, H, W, C]`` and where the modalities diverge."""

    rgb_BHWC: Tensor
    thermal_BHWC: Tensor
    divergence: DivergenceMap


@INTERACTIONS.register(InteractionOptions)
class ModalityDivergenceInteraction(Recomputable):
    """MDI, the published interaction (section 2 of docs/model.md): mask, local attention, channel Mamba, gated
    write-back.

    Args:
        options: The parts.
        stage: 1 to 4; picks the stage's entry out of the per-stage options.
        width: Channels ``C`` of both streams at this stage, a multiple of 4.
    """

    def __init__(self, options: InteractionOptions, *, stage: int, width: int):
        super().__init__()
        self.sparse = options.sparse
        self.mask = DivergenceMask(options.divergence)
        self.attention = self.mamba = None
        if options.local_attention is not None:
            self.attention = LocalCrossAttention(options.local_attention, stage=stage, width=width)
        if options.channel_mamba is not None:
            self.mamba = ChannelMamba(options.channel_mamba, stage=stage, width=width)

    def forward(self, rgb_BHWC: Tensor, thermal_BHWC: Tensor) -> InteractionOutput:
        divergence = self.mask(rgb_BHWC, thermal_BHWC)
        u_rgb, u_thermal = rgb_BHWC, thermal_BHWC
        if self.attention is not None:
            u_rgb, u_thermal = self.attention(u_rgb, u_thermal)
        index_N = self._rows(divergence)
        if self.mamba is not None:
            v_rgb_NC, v_thermal_NC = self.mamba(u_rgb, u_thermal, index_N)
        else:
            v_rgb_NC, v_thermal_NC = take_rows(u_rgb, index_N), take_rows(u_thermal, index_N)
        gate_N = divergence.gate_BP.flatten() if index_N is None else divergence.gate_BP.flatten()[index_N]
        return InteractionOutput(
            _write_back(rgb_BHWC, v_rgb_NC, gate_N, index_N),
            _write_back(thermal_BHWC, v_thermal_NC, gate_N, index_N),
            divergence,
        )

    def _rows(self, divergence: DivergenceMap) -> Tensor | None:
        if not self.sparse or divergence.index_BK is None:
            return None
        B, P = divergence.gate_BP.shape
        offset_B1 = P * torch.arange(B, device=divergence.index_BK.device)[:, None]
        return (divergence.index_BK + offset_B1).flatten()


def _write_back(x_BHWC: Tensor, v_NC: Tensor, gate_N: Tensor, index_N: Tensor | None) -> Tensor:
    """``F̂ = F + M * V`` with ``V`` given at the rows ``index_N`` (None: everywhere)."""
    update_NC = (gate_N[:, None] * v_NC).to(x_BHWC.dtype)
    rows = x_BHWC.flatten(0, 2)
    rows = rows + update_NC if index_N is None else rows.index_add(0, index_N, update_NC)
    return rows.view(x_BHWC.shape)
