"""Selective scan (S6), the input-dependent linear recurrence of Mamba.

Legend: B sequences, L steps, D channels, N states per channel.

The general form, one direction at a time: the reference, and the form in which libraries offer it. The model calls
``mdg.ops.channel_scan``.

An implementation takes ``(u_BLD, delta_BLD, A_DN, B_BLN, C_BLN, D_D, delta_bias_D, delta_softplus: bool,
reverse: bool)``, all tensors in one dtype (float32 or float64), and returns that dtype. That of
``torch`` lies in ``plain.py``: a module ``torch`` in this package would hide PyTorch from this file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mdg.errors import UserError
from mdg.ops.modes import is_exporting
from mdg.ops.selective_scan import mamba as mamba_backend
from mdg.ops.selective_scan.plain import scan_forward
from mdg.ops.selective_scan.prefix import prefix_selective_scan

IMPLEMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "torch": scan_forward,
    "mamba_ssm": mamba_backend.mamba_selective_scan,
}


def selective_scan(
    u_BLD: Tensor,
    delta_BLD: Tensor,
    A_DN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_D: Tensor,
    *,
    delta_bias_D: Tensor | None = None,
    delta_softplus: bool = True,
    reverse: bool = False,
    backend: str = "torch",
) -> Tensor:
    """Run ``h_l = exp(dt_l A) h_{l-1} + dt_l B_l u_l``, ``y_l = C_l . h_l + D u_l`` along ``L``, from ``h = 0``.

    Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, 2023 (equations 2a, 2b; algorithm 2).

    Args:
        u_BLD: input ``[B, L, D]``, floating point.
        delta_BLD: step size ``[B, L, D]``; ``dt = softplus(delta + delta_bias)``, without softplus where
            ``delta_softplus`` is False.
        A_DN: ``[D, N]``, negative for a decaying state.
        B_BLN, C_BLN: input and output projections ``[B, L, N]``.
        D_D: skip ``[D]``.
        delta_bias_D: ``[D]``, zero by default.
        reverse: scan from the last step to the first; equals flipping ``L`` before and after.
        backend: "torch", or "mamba_ssm" on CUDA.

    Returns:
        ``y_BLD`` in the dtype of ``u``. All arithmetic is float32, also under autocast, or float64 where an input is.
        Differentiable once in every tensor.

    Raises:
        UserError: a shape does not fit, an input is not floating point, or the backend cannot run.
    """
    if delta_bias_D is None:
        delta_bias_D = D_D.new_zeros(D_D.shape)
    inputs = (u_BLD, delta_BLD, A_DN, B_BLN, C_BLN, D_D, delta_bias_D)
    _check(*inputs)
    dtype = torch.float64 if any(x.dtype == torch.float64 for x in inputs) else torch.float32
    arguments: list[Any] = [*(x.to(dtype) for x in inputs), bool(delta_softplus), bool(reverse)]
    if is_exporting():
        return prefix_selective_scan(*arguments).to(u_BLD.dtype)
    if backend not in IMPLEMENTATIONS:
        raise UserError(f"selective_scan: got backend '{backend}'; expected one of: {', '.join(IMPLEMENTATIONS)}.")
    if backend == "mamba_ssm" and (reason := mamba_backend.why_not(arguments[0], arguments[2])):
        raise UserError(f"selective_scan: backend 'mamba_ssm' cannot run: {reason}. Use 'torch'.")
    return IMPLEMENTATIONS[backend](*arguments).to(u_BLD.dtype)


def _check(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor) -> None:
    if u.dim() != 3 or A.dim() != 2:
        raise UserError(
            f"selective_scan: got u {list(u.shape)} and A {list(A.shape)}; expected [B, L, D] and [D, N]. "
            "Fold all leading dimensions into B."
        )
    batch, length, channels = u.shape
    states = A.shape[1]
    expected = {
        "delta": (delta, [batch, length, channels]),
        "A": (A, [channels, states]),
        "B": (B, [batch, length, states]),
        "C": (C, [batch, length, states]),
        "D": (D, [channels]),
        "delta_bias": (bias, [channels]),
    }
    for name, (tensor, shape) in expected.items():
        if list(tensor.shape) != shape:
            raise UserError(
                f"selective_scan: got {name} {list(tensor.shape)}; expected {shape}, given u {list(u.shape)} and "
                f"{states} states (the last dimension of A). Change {name}."
            )
    if not all(x.is_floating_point() for x in (u, delta, A, B, C, D, bias)):
        raise UserError("selective_scan: got an integer or complex input; expected floating point. Cast it first.")
