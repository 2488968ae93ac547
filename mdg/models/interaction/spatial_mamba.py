"""A fusion by scans over space, after Sigma (Wan et al., WACV 2025), a rival of MDG.

Sigma's encoder (VMamba) and decoder are left out: this is its cross and its concat Mamba block on any two maps.

Legend: B batch, H W map, P = H*W positions, L steps, C width, E scanned width, N states, R rank of the step size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdg.models.interaction.channel_mamba import SelectiveScanDirection
from mdg.models.layers import Linear, conv_bhwc, depthwise, init_weights
from mdg.ops import selective_scan
from mdg.ops.modes import float32_island
from mdg.options.models import SpatialMambaFusionOptions
from mdg.registry import FUSIONS


class SpatialScan(SelectiveScanDirection):
    """One selective scan over positions, whose read-out ``C`` may come from another sequence."""

    def __init__(self, scanned: int, state: int, dt_rank: int):
        super().__init__(scanned, state, dt_rank, (1e-3, 1e-1))  # as in Mamba: positions are many
        self.sizes = (dt_rank, state, state)

    def project(self, u_BLE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Step size ``[B, L, E]`` before its bias and the softplus, input and read-out ``[B, L, N]``."""
        step_BLR, B_BLN, C_BLN = self.x_proj(u_BLE).split(self.sizes, dim=-1)
        return F.linear(step_BLR, self.dt_proj.weight), B_BLN, C_BLN

    def scan(self, u_BLE: Tensor, step_BLE: Tensor, B_BLN: Tensor, C_BLN: Tensor, *, reverse: bool = False) -> Tensor:
        """``[B, L, E]``."""
        A_EN, bias_E = -torch.exp(self.A_log), self.dt_proj.bias
        return selective_scan(u_BLE, step_BLE, A_EN, B_BLN, C_BLN, self.D, delta_bias_D=bias_E, reverse=reverse)


class StreamsIn(nn.Module):
    """Both maps, normalised, widened, mixed in space and bent: ``[B, H, W, C] -> [B, P, E]`` float32."""

    def __init__(self, width: int, scanned: int):
        super().__init__()
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.enter = nn.ModuleList(Linear(width, scanned, bias=False) for _ in range(2))
        self.conv = nn.ModuleList(depthwise(scanned, 3) for _ in range(2))

    def forward(self, maps: tuple[Tensor, Tensor]) -> list[Tensor]:
        return [
            F.silu(conv_bhwc(conv, enter(norm(x)))).flatten(1, 2).float()
            for norm, enter, conv, x in zip(self.norm, self.enter, self.conv, maps, strict=True)
        ]


@FUSIONS.register(SpatialMambaFusionOptions)
class SpatialMambaFusion(nn.Module):
    """Cross Mamba, in which each stream reads its states by the other one's ``C``, then concat Mamba: one sequence of
    both streams, scanned forwards and backwards, becomes one map.

    Args:
        options: Sizes of the scans.
        width: Channels ``C`` of both streams.
    """

    def __init__(self, options: SpatialMambaFusionOptions, *, width: int):
        super().__init__()
        scanned, rank = options.expansion * width, math.ceil(width / 16)
        self.cross_in, self.concat_in = StreamsIn(width, scanned), StreamsIn(width, scanned)
        self.cross = nn.ModuleList(SpatialScan(scanned, options.state, rank) for _ in range(2))
        self.cross_norm = nn.ModuleList(nn.LayerNorm(scanned) for _ in range(2))
        self.cross_out = nn.ModuleList(Linear(scanned, width, bias=False) for _ in range(2))
        self.concat = nn.ModuleList(SpatialScan(scanned, options.state, rank) for _ in range(2))
        self.concat_norm = nn.ModuleList(nn.LayerNorm(scanned) for _ in range(2))
        self.concat_out = Linear(2 * scanned, width, bias=False)
        self.apply(init_weights)

    def forward(self, rgb_BHWC: Tensor, thermal_BHWC: Tensor) -> Tensor:
        """``F_r, F_t`` -> one map, all ``[B, H, W, C]``."""
        size, dtype = rgb_BHWC.shape[1:3], rgb_BHWC.dtype
        with float32_island(rgb_BHWC):
            maps = self._cross(rgb_BHWC.float(), thermal_BHWC.float())
            return self._concat(maps).unflatten(1, size).to(dtype)

    def _cross(self, rgb_BHWC: Tensor, thermal_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        maps, scans = (rgb_BHWC, thermal_BHWC), cast(Sequence[SpatialScan], self.cross)
        inputs = self.cross_in(maps)
        projected = [scan.project(u) for scan, u in zip(scans, inputs, strict=True)]
        out = []
        for own, other in ((0, 1), (1, 0)):
            step, B, _ = projected[own]
            y = scans[own].scan(inputs[own], step, B, projected[other][2])
            out.append(maps[own] + self.cross_out[own](self.cross_norm[own](y)).view(maps[own].shape))
        return out[0], out[1]

    def _concat(self, maps: tuple[Tensor, Tensor]) -> Tensor:
        sequence_BLE = torch.cat(self.concat_in(maps), dim=1)
        there, back = cast(Sequence[SpatialScan], self.concat)
        y_BLE = there.scan(sequence_BLE, *there.project(sequence_BLE))
        y_BLE = y_BLE + back.scan(sequence_BLE, *back.project(sequence_BLE), reverse=True)
        rgb, thermal = (norm(y) for norm, y in zip(self.concat_norm, y_BLE.chunk(2, dim=1), strict=True))
        return (maps[0] + maps[1]).flatten(1, 2) + self.concat_out(torch.cat([rgb, thermal], dim=-1))
