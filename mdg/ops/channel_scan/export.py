"""Channel scan in operations that every runtime knows. Legend: see ``mdg.ops.channel_scan``."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from mdg.ops.selective_scan.prefix import prefix_selective_scan


def exportable_channel_scan(
    u_BLD: Tensor, projected_BLP: Tensor, dt_weight_SDR: Tensor, dt_bias_SD: Tensor, A_SDN: Tensor, D_SD: Tensor
) -> Tensor:
    """What the operator is inside of :func:`mdg.ops.modes.exporting`; every state is written to memory, four bytes for
    each of ``B L D N`` numbers, several times."""
    (S, _, R), N, dtype = dt_weight_SDR.shape, A_SDN.shape[-1], A_SDN.dtype
    u, parts_BLD = u_BLD.to(dtype), []
    for s, projected in enumerate(projected_BLP.to(dtype).chunk(S, dim=-1)):
        low_BLR, B_BLN, C_BLN = projected.split([R, N, N], dim=-1)
        delta_BLD = low_BLR @ dt_weight_SDR[s].t()
        parts_BLD.append(
            prefix_selective_scan(u, delta_BLD, A_SDN[s], B_BLN, C_BLN, D_SD[s], dt_bias_SD[s], True, s == 1)
        )
    return reduce(torch.add, parts_BLD).to(u_BLD.dtype)
