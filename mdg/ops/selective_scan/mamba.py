"""Selective scan from the optional mamba_ssm library (one fused CUDA kernel).

Legend: B sequences, L steps, D channels, N states per channel.
"""

from __future__ import annotations

import functools
import importlib

import torch
from torch import Tensor

from mdg.ops.dispatch import constant_while_tracing

MAX_STATES = 256  # limit of the CUDA kernel


def mamba_selective_scan(
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
    """Backend ``mamba_ssm``: see ``mdg.ops.selective_scan``."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    def steps_last(x_BLX: Tensor) -> Tensor:
        return (x_BLX.flip(1) if reverse else x_BLX).transpose(1, 2).contiguous()

    with torch.autocast(u_BLD.device.type, enabled=False):
        y_BDL = selective_scan_fn(
            u=steps_last(u_BLD),
            delta=steps_last(delta_BLD),
            A=A_DN,
            B=steps_last(B_BLN),
            C=steps_last(C_BLN),
            D=D_D,
            delta_bias=delta_bias_D,
            delta_softplus=delta_softplus,
        )
    y_BLD = y_BDL.transpose(1, 2)
    return y_BLD.flip(1) if reverse else y_BLD


def why_not(u_BLD: Tensor, A_DN: Tensor) -> str | None:
    """Why mamba_ssm cannot run here."""
    if u_BLD.device.type != "cuda":
        return f"mamba_ssm runs on CUDA tensors only, got {u_BLD.device.type}"
    if u_BLD.dtype != torch.float32:
        return f"mamba_ssm computes in float32, got {u_BLD.dtype}"
    if A_DN.shape[1] > MAX_STATES:
        return f"mamba_ssm takes at most {MAX_STATES} states, got {A_DN.shape[1]}"
    if u_BLD.numel() == 0:
        return "mamba_ssm takes no empty input"
    failure = _import_failure()
    return failure and f"mamba_ssm or its CUDA extension selective_scan_cuda cannot be imported ({failure})"


@constant_while_tracing
def _import_failure() -> str | None:
    return _try_import()


@functools.cache
def _try_import() -> str | None:
    # The package imports without its extension, and an extension built for another torch fails in its own ways.
    try:
        importlib.import_module("selective_scan_cuda")
        interface = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
        return None if hasattr(interface, "selective_scan_fn") else "it has no function selective_scan_fn"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
