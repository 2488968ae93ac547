"""Multiply-accumulates (MACs) of single operations.

Counted: convolutions, matrix products, attention, the scan, the FFT. Not counted: what does no product of two numbers
that meet in a sum, or little of it beside these (norms, activations, softmax, exponentials, resizing, element-wise
products). A MAC is two floating-point operations.

Legend: B batch, H W map, h heads, d head dimension; for the scan B sequences, L steps, D features, N states, R rank of
the step size, S directions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten


def neighborhood_attention_macs(q_BHWhd: Tensor, k: Tensor, v: Tensor, kernel_size: int, scale: float) -> int:
    """Scores and their weighted sum over the keys of each window: ``2 B H W k k h d``.

    A window is never larger than the map. What a backend computes besides, at masked keys, is its own affair.
    """
    _, H, W, _, _ = q_BHWhd.shape
    return 2 * q_BHWhd.numel() * min(kernel_size, H) * min(kernel_size, W)


def channel_scan_macs(
    u_BLD: Tensor, projected: Tensor, dt_weight_SDR: Tensor, dt_bias: Tensor, A_SDN: Tensor, D: Tensor
) -> int:
    """``B L S D (2 N + R)``: per state the decay ``h = a h + x`` and the output ``y += C h``, and the projection of the
    step size from rank R. Exponentials, softplus and the skip are left out."""
    S, _, N = A_SDN.shape
    return u_BLD.numel() * S * (2 * N + dt_weight_SDR.shape[-1])


def attention_macs(q_BNC: Tensor, k_BMC: Tensor, v_BMC: Tensor, heads: int) -> int:
    """Scores and their weighted sum over all M keys: ``2 B N M C``."""
    return 2 * q_BNC.numel() * k_BMC.shape[1]


OPERATOR_MACS: dict[str, Callable[..., int]] = {
    "neighborhood_attention": neighborhood_attention_macs,
    "selective_scan": channel_scan_macs,
    "attention": attention_macs,
}


def operation_macs(operation: Any, args: tuple, kwargs: dict[str, Any], out: Any) -> int:
    """MACs of one ATen operation; zero for what is not counted. Inputs and output may be meta tensors."""
    if operation in FFT_MACS:
        return FFT_MACS[operation](*args, out=out)
    formula = flop_registry.get(operation)
    return formula(*args, **kwargs, out_val=out) // 2 if formula is not None else 0


def _fft_macs(x: Tensor, dims: list[int], share: float) -> int:
    # 5 n log2 n floating-point operations for a complex transform of n points, half of that for a real one: the
    # convention of FFTW's benchmarks (Frigo and Johnson, 2005), whatever the algorithm.
    points = math.prod(x.shape[dim] for dim in dims)
    return round(share * 5 * x.numel() * math.log2(points) / 2) if points > 1 else 0


FFT_MACS: dict[Any, Callable[..., int]] = {
    aten._fft_c2c: lambda x, dims, *rest, out: _fft_macs(x, dims, 1.0),
    aten._fft_r2c: lambda x, dims, *rest, out: _fft_macs(x, dims, 0.5),
    aten._fft_c2r: lambda x, dims, *rest, out: _fft_macs(out, dims, 0.5),
}
