"""Channel scan as it is written on paper, and as the published code runs it: every state is written to memory.

It is there to be read and to compare with; it is slow, and its memory grows with ``B * L * D * N``.
Legend: see ``mdg.ops.channel_scan``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def reference_channel_scan(
    u_BLD: Tensor, projected_BLP: Tensor, dt_weight_SDR: Tensor, dt_bias_SD: Tensor, A_SDN: Tensor, D_SD: Tensor
) -> Tensor:
    """Backend ``reference``: see ``mdg.ops.channel_scan``. PyTorch's own autograd differentiates it, any number of
    times."""
    (S, _, R), N, dtype = dt_weight_SDR.shape, A_SDN.shape[-1], A_SDN.dtype
    parts = zip(projected_BLP.to(dtype).chunk(S, dim=-1), dt_weight_SDR, dt_bias_SD, A_SDN, D_SD, strict=True)
    total_BLD = torch.zeros_like(u_BLD, dtype=dtype)
    for s, (projected, W_DR, bias_D, A_DN, D_D) in enumerate(parts):
        p_BLR, B_BLN, C_BLN = projected.split([R, N, N], dim=-1)
        dt_BLD = F.softplus(p_BLR @ W_DR.t() + bias_D)
        states_BLDN = _states(u_BLD.to(dtype), dt_BLD, A_DN, B_BLN, reverse=s == 1)
        total_BLD = total_BLD + (states_BLDN * C_BLN[:, :, None]).sum(-1) + D_D * u_BLD
    return total_BLD.to(u_BLD.dtype)


def _states(u_BLD: Tensor, dt_BLD: Tensor, A_DN: Tensor, B_BLN: Tensor, reverse: bool) -> Tensor:
    decay_BLDN = torch.exp(dt_BLD[..., None] * A_DN)
    input_BLDN = (dt_BLD * u_BLD)[..., None] * B_BLN[:, :, None]
    h_BDN, states = torch.zeros_like(input_BLDN[:, 0]), []
    steps = range(u_BLD.shape[1])
    for step in reversed(steps) if reverse else steps:
        h_BDN = decay_BLDN[:, step] * h_BDN + input_BLDN[:, step]
        states.append(h_BDN)
    return torch.stack(states[::-1] if reverse else states, dim=1)


def why_not(u_BLD: Tensor, *others: Tensor) -> str | None:
    """There is no step."""
    return None if u_BLD.shape[1] else "it takes sequences of at least one step"


def why_not_automatic(*inputs: Tensor) -> str | None:
    """Every other backend is better."""
    return "it writes out every state and is there to compare with"
