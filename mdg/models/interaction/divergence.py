"""Where the two modalities disagree: the divergence map and the mask made of it (MDG, modality divergence mask).

Legend: B batch, H W map, C channels, P = H*W positions, K selected positions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdg.models.layers import Linear
from mdg.options.models import DivergenceOptions


class DivergenceMap(NamedTuple):
    """Divergence ``[B, H, W]`` in [0, 2], float32; multiplier ``[B, P]``; selected ``[B, K]`` or None (all)."""

    divergence_BHW: Tensor
    gate_BP: Tensor
    index_BK: Tensor | None

    def mask(self) -> Tensor:
        """The multiplier as a map ``[B, H, W]``, without gradient; for pictures."""
        return self.gate_BP.detach().reshape(self.divergence_BHW.shape)


class DivergenceMask(nn.Module):
    """``d = 1 - cos(F_r, F_t)`` per position and the mask ``M`` of section 2.1 of docs/model.md.

    ``topk`` selects the ``ceil(ratio * H * W)`` largest ``d``. Its multiplier is ``1 + d - stopgrad(d)``: the value is
    one, the gradient is that of ``d``, so training can raise or lower the divergence itself (straight-through). With
    ``gradient: all`` it is ``d - stopgrad(d)`` at the other positions: zero, with that gradient too.

    Args:
        options: The kind of mask.
        width: Channels ``C`` of both maps.
    """

    def __init__(self, options: DivergenceOptions, *, width: int):
        super().__init__()
        self.mode, self.ratio, self.everywhere = options.mode, options.ratio, options.gradient == "all"
        self.sign = 1 if options.select == "most" else -1
        self.leaves_out_padding = self.mode == "topk" and options.padding == "left_out"
        self.project: nn.ModuleList | None = None
        if options.projection is not None:
            self.project = nn.ModuleList(Linear(width, options.projection, bias=False) for _ in range(2))
        if self.mode == "soft":
            self.affine = nn.Parameter(torch.tensor(options.soft_start))

    def forward(self, rgb_BHWC: Tensor, thermal_BHWC: Tensor, seen_BHW: Tensor | None = None) -> DivergenceMap:
        """Compares the maps; ``seen_BHW``, bool, are the positions that take part in the ranking (None: all)."""
        if self.project is not None:
            rgb_BHWC, thermal_BHWC = self.project[0](rgb_BHWC), self.project[1](thermal_BHWC)
        d_BHW = 1 - F.cosine_similarity(rgb_BHWC.float(), thermal_BHWC.float(), dim=-1)
        d_BP = d_BHW.flatten(1)
        if self.mode == "none":
            return DivergenceMap(d_BHW, torch.ones_like(d_BP), None)
        if self.mode == "soft":
            return DivergenceMap(d_BHW, torch.sigmoid(self.affine[0] * d_BP + self.affine[1]), None)
        count = math.ceil(self.ratio * d_BP.shape[1])
        # In ascending order the gather and the scatter walk through memory once.
        rank_BP = self.sign * d_BP.detach()
        if seen_BHW is None:
            index_BK = rank_BP.topk(count, dim=1, sorted=False).indices.sort(dim=1).values
            selected_BP = torch.zeros_like(d_BP).scatter(1, index_BK, 1.0)
        else:
            # As many places for every image; where fewer are seen, the last of them count nothing.
            seen_BP = seen_BHW.flatten(1)
            ranked_BK = rank_BP.masked_fill(~seen_BP, -torch.inf).topk(count, dim=1).indices
            counts_B1 = torch.ceil(self.ratio * seen_BP.sum(dim=1, keepdim=True))
            kept_BK = (torch.arange(count, device=d_BP.device) < counts_B1).to(d_BP.dtype)
            selected_BP = torch.zeros_like(d_BP).scatter(1, ranked_BK, kept_BK)
            index_BK = ranked_BK.sort(dim=1).values
        change_BP = d_BP - d_BP.detach()
        if self.everywhere:
            return DivergenceMap(d_BHW, selected_BP + change_BP, None)
        return DivergenceMap(d_BHW, selected_BP * (1 + change_BP), index_BK)
