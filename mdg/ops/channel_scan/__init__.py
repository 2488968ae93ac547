"""Channel scan: the selective scan as channel Mamba uses it, one or two directions over very short sequences.

Legend: B sequences, L steps, D features, N states per feature, R rank of the step size, S directions (1: first to last
step; 2: that and back), P = S * (R + 2 N) projected numbers per step.

A backend takes ``(u_BLD, projected_BLP, dt_weight_SDR, dt_bias_SD, A_SDN, D_SD)``, the parameters in float32 (or
float64, where an input is), and returns ``y_BLD`` in the dtype of ``u``.
"""

from __future__ import annotations

from functools import partial, reduce

import torch
from torch import Tensor

from mdg.errors import UserError
from mdg.ops.channel_scan import numba as numba_backend
from mdg.ops.channel_scan import reference as reference_backend
from mdg.ops.channel_scan import triton as triton_backend
from mdg.ops.dispatch import Backend, add_operator
from mdg.ops.selective_scan import mamba as mamba_backend
from mdg.ops.selective_scan import selective_scan


def _compose(backend: str, u_BLD: Tensor, projected_BLP: Tensor, *parameters: Tensor) -> Tensor:
    """One :func:`mdg.ops.selective_scan` per direction, with the step sizes written out."""
    dt_weight_SDR, dt_bias_SD, A_SDN, D_SD = parameters
    S, _, R = dt_weight_SDR.shape
    N, dtype = A_SDN.shape[-1], A_SDN.dtype
    parts_BLD = []
    for s, projected in enumerate(projected_BLP.to(dtype).chunk(S, dim=-1)):
        dt_BLR, B_BLN, C_BLN = projected.split([R, N, N], dim=-1)
        part_BLD = selective_scan(
            u_BLD.to(dtype),
            dt_BLR @ dt_weight_SDR[s].t(),
            A_SDN[s],
            B_BLN,
            C_BLN,
            D_SD[s],
            delta_bias_D=dt_bias_SD[s],
            reverse=s == 1,
            backend=backend,
        )
        parts_BLD.append(part_BLD)
    return reduce(torch.add, parts_BLD).to(u_BLD.dtype)


def _mamba_why_not(u_BLD: Tensor, projected_BLP: Tensor, *parameters: Tensor) -> str | None:
    A_SDN = parameters[2]
    return mamba_backend.why_not(u_BLD.to(A_SDN.dtype), A_SDN[0])


MIN_NUMBERS = 2**14  # of a state over all steps; below it nothing that was measured is looked up


def describe(u_BLD: Tensor, projected_BLP: Tensor, *parameters: Tensor) -> tuple[int, ...] | None:
    """Sequences B, steps L, scans of a sequence: directions times features."""
    (B, L, D), S = u_BLD.shape, parameters[1].shape[0]
    return (B, L, S * D) if B * L * S * D >= MIN_NUMBERS else None


OPERATOR = add_operator(
    "channel_scan",
    Backend(
        "triton",
        triton_backend.triton_channel_scan,
        triton_backend.why_not,
        triton_backend.why_not_automatic,
        priority=30,
    ),
    Backend("numba", numba_backend.numba_channel_scan, numba_backend.why_not, priority=20),
    Backend("mamba_ssm", partial(_compose, "mamba_ssm"), _mamba_why_not, priority=10),
    Backend("torch", partial(_compose, "torch")),
    Backend(
        "reference",
        reference_backend.reference_channel_scan,
        reference_backend.why_not,
        reference_backend.why_not_automatic,
        priority=-10,
    ),
    export=partial(_compose, "torch"),  # whose selective scan is another one then
    describe=describe,
)


def channel_scan(
    u_BLD: Tensor,
    projected_BLP: Tensor,
    dt_weight_SDR: Tensor,
    dt_bias_SD: Tensor,
    A_SDN: Tensor,
    D_SD: Tensor,
    *,
    backend: str | None = None,
) -> Tensor:
    """Sum over the directions of ``h_l = exp(dt_l A) h_{l-1} + dt_l B_l u_l``, ``y_l = C_l . h_l + D u_l``.

    ``dt_l = softplus(W p_l + b)`` with the first R numbers ``p_l`` of a direction's projection; the next N are ``B_l``,
    the last N ``C_l``. Direction 0 runs from the first step to the last, direction 1 from the last to the first. Gu and
    Dao, Mamba, 2023 (algorithm 2); Zhu et al., Vision Mamba, 2024 (both directions).

    Args:
        u_BLD: Input ``[B, L, D]``, floating point.
        projected_BLP: ``[B, L, S * (R + 2 N)]``: per direction the step size, input and output projections of ``u``.
        dt_weight_SDR, dt_bias_SD: Projection of the step size, ``[S, D, R]`` and ``[S, D]``.
        A_SDN: ``[S, D, N]``, negative for a decaying state.
        D_SD: Skip ``[S, D]``.
        backend: Overrides the configured choice for this call, see ``mdg.ops.dispatch``.

    Returns:
        ``y_BLD`` in the dtype of ``u``. Inside everything is float32 (float64 where an input is), also under autocast.
        Differentiable once in every tensor.

    Raises:
        UserError: A shape does not fit, an input is not floating point, or the backend cannot run.
    """
    inputs = (u_BLD, projected_BLP, dt_weight_SDR, dt_bias_SD, A_SDN, D_SD)
    _check(*inputs)
    dtype = torch.float64 if any(x.dtype == torch.float64 for x in inputs) else torch.float32
    return OPERATOR(u_BLD, projected_BLP, *(x.to(dtype) for x in inputs[2:]), backend=backend)


def _check(u: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor) -> None:
    if u.dim() != 3 or A.dim() != 3 or dt_weight.dim() != 3 or A.shape[0] not in (1, 2):
        raise UserError(
            f"channel_scan: got u {list(u.shape)}, A {list(A.shape)}, dt_weight {list(dt_weight.shape)}; expected "
            "[B, L, D], [S, D, N] and [S, D, R] with one or two directions S. Fold all leading dimensions into B."
        )
    (batch, length, features), (directions, _, states), rank = u.shape, A.shape, dt_weight.shape[-1]
    expected = {
        "projected": (projected, [batch, length, directions * (rank + 2 * states)]),
        "dt_weight": (dt_weight, [directions, features, rank]),
        "dt_bias": (dt_bias, [directions, features]),
        "A": (A, [directions, features, states]),
        "D": (D, [directions, features]),
    }
    for name, (tensor, shape) in expected.items():
        if list(tensor.shape) != shape:
            raise UserError(
                f"channel_scan: got {name} {list(tensor.shape)}; expected {shape}, given u {list(u.shape)}, "
                f"{states} states and rank {rank}. Change {name}."
            )
    if not all(x.is_floating_point() for x in (u, projected, dt_weight, dt_bias, A, D)):
        raise UserError("channel_scan: got an integer or complex input; expected floating point. Cast it first.")
