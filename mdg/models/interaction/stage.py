"""Modality Divergence Interaction (MDI): divergence mask, local cross-attention, channel Mamba, gated write-back.

Legend: B batch, H W map, C width, P = H*W, K selected positions per image, N = B*K rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mdg.models.interaction.channel_mamba import ChannelMamba, take_rows
from mdg.models.interaction.divergence import DivergenceMap, DivergenceMask
from mdg.models.interaction.exchange import InteractionOutput
from mdg.models.interaction.local_cross_attention import LocalCrossAttention
from mdg.models.recompute import Recomputable
from mdg.options.models import InteractionOptions
from mdg.registry import INTERACTIONS


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
        self.sparse, self.change = options.sparse, options.write_back == "change"
        self.mask = DivergenceMask(options.divergence, width=width)
        self.leaves_out_padding = self.mask.leaves_out_padding
        self.scale: nn.ParameterList | None = None
        if options.learned_scale:
            self.scale = nn.ParameterList(torch.zeros(width) for _ in range(2))
        self.attention = self.mamba = None
        if options.local_attention is not None and stage in options.local_attention.stages:
            self.attention = LocalCrossAttention(options.local_attention, stage=stage, width=width)
        if options.channel_mamba is not None:
            self.mamba = ChannelMamba(options.channel_mamba, stage=stage, width=width)

    def forward(self, rgb_BHWC: Tensor, thermal_BHWC: Tensor, seen_BHW: Tensor | None = None) -> InteractionOutput:
        """``F_r, F_t`` ``[B, H, W, C]``; ``seen_BHW``, bool, are the positions that show something (None: all)."""
        divergence = self.mask(rgb_BHWC, thermal_BHWC, seen_BHW)
        u_rgb, u_thermal = rgb_BHWC, thermal_BHWC
        if self.attention is not None:
            u_rgb, u_thermal = self.attention(u_rgb, u_thermal)
        index_N = self._rows(divergence)
        if self.mamba is not None:
            v_rgb_NC, v_thermal_NC = self.mamba(u_rgb, u_thermal, index_N)
        else:
            v_rgb_NC, v_thermal_NC = take_rows(u_rgb, index_N), take_rows(u_thermal, index_N)
        gate_N = divergence.gate_BP.flatten() if index_N is None else divergence.gate_BP.flatten()[index_N]
        scale = self.scale if self.scale is not None else (None, None)
        return InteractionOutput(
            self._write_back(rgb_BHWC, v_rgb_NC, gate_N, index_N, scale[0]),
            self._write_back(thermal_BHWC, v_thermal_NC, gate_N, index_N, scale[1]),
            divergence,
        )

    def _write_back(
        self, x_BHWC: Tensor, v_NC: Tensor, gate_N: Tensor, index_N: Tensor | None, scale_C: Tensor | None
    ) -> Tensor:
        """``F̂ = F + M * V``, or ``F + M * (V - F)``, with ``V`` given at the rows ``index_N`` (None: everywhere)."""
        if self.change:
            v_NC = v_NC - take_rows(x_BHWC, index_N)
        weight_N1 = gate_N[:, None]
        update_NC = (weight_N1 * v_NC if scale_C is None else weight_N1 * scale_C * v_NC).to(x_BHWC.dtype)
        rows = x_BHWC.flatten(0, 2)
        rows = rows + update_NC if index_N is None else rows.index_add(0, index_N, update_NC)
        return rows.view(x_BHWC.shape)

    def _rows(self, divergence: DivergenceMap) -> Tensor | None:
        if not self.sparse or divergence.index_BK is None:
            return None
        B, P = divergence.gate_BP.shape
        offset_B1 = P * torch.arange(B, device=divergence.index_BK.device)[:, None]
        return (divergence.index_BK + offset_B1).flatten()
