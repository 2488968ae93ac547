"""Linear recurrences in operations that every runtime knows: all steps at once, in ``log2`` of their number of rounds.

``h_l = a_l h_{l-1} + b_l`` with neighbouring steps taken together is a recurrence of half the length:

    h_{l+1} = (a_{l+1} a_l) h_{l-1} + (a_{l+1} b_l + b_{l+1})

It gives every second state; the others follow from those by one more step (Blelloch, Prefix sums and their
applications, 1990). Every state is written to memory, so this is for graphs that other programs run, where a loop is an
operator of its own for each step.

Legend: B sequences, L steps, D channels, N states per channel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def prefix_states(decay_L: Tensor, input_L: Tensor) -> Tensor:
    """States ``h_l = decay_l h_{l-1} + input_l`` from ``h = 0``; steps are the first of any number of dimensions."""
    steps = decay_L.shape[0]
    if steps == 1:
        return input_L
    if steps % 2:
        states_L = prefix_states(decay_L[:-1], input_L[:-1])
        return torch.cat([states_L, decay_L[-1:] * states_L[-1:] + input_L[-1:]])
    (decay_even, decay_odd), (input_even, input_odd) = _halves(decay_L), _halves(input_L)
    odd = prefix_states(decay_odd * decay_even, decay_odd * input_even + input_odd)
    if steps == 2:
        return torch.cat([input_even, odd])
    even = torch.cat([input_even[:1], decay_even[1:] * odd[:-1] + input_even[1:]])
    return torch.stack([even, odd], dim=1).flatten(0, 1)


def _halves(x_L: Tensor) -> tuple[Tensor, Tensor]:
    pairs = x_L.unflatten(0, (x_L.shape[0] // 2, 2))
    return pairs[:, 0], pairs[:, 1]


def prefix_selective_scan(
    u_BLD: Tensor,
    delta_BLD: Tensor,
    A_DN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_D: Tensor,
    delta_bias_D: Tensor,
    delta_softplus: bool,
    reverse: bool,
) -> Tensor:
    """The selective scan of ``mdg.ops.selective_scan``; the number of steps is one that is known beforehand."""
    u_LBD, dt_LBD = u_BLD.transpose(0, 1), (delta_BLD + delta_bias_D).transpose(0, 1)
    B_LBN, C_LBN = B_BLN.transpose(0, 1), C_BLN.transpose(0, 1)
    dt_LBD = F.softplus(dt_LBD) if delta_softplus else dt_LBD
    if reverse:
        u_LBD, dt_LBD, B_LBN, C_LBN = (x.flip(0) for x in (u_LBD, dt_LBD, B_LBN, C_LBN))
    decay_LBND = torch.exp(dt_LBD[:, :, None] * A_DN.t())
    input_LBND = (dt_LBD * u_LBD)[:, :, None] * B_LBN[..., None]
    y_LBD = (prefix_states(decay_LBND, input_LBND) * C_LBN[..., None]).sum(2)
    return (y_LBD.flip(0) if reverse else y_LBD).transpose(0, 1) + D_D * u_BLD
