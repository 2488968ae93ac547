"""Random inputs for the operators of ``mdg.ops``, of the shapes that a network gives them.

Legend: see ``mdg.ops.neighborhood_attention``, ``mdg.ops.channel_scan`` and ``mdg.ops.attention``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Inputs = list[Any]
SEED = 0


def neighborhood_attention_inputs(shapes: Sequence[Any], dtype: torch.dtype) -> Inputs:
    """Normal queries, keys and values; window and scale as they are."""
    *qkv, kernel_size, scale = shapes
    return [*(_normal(shape, place).to(dtype) for place, shape in enumerate(qkv)), kernel_size, scale]


def channel_scan_inputs(shapes: Sequence[Any], dtype: torch.dtype) -> Inputs:
    """Normal sequences and projections, parameters as the network starts with. float32, as the network makes them
    whatever its precision."""
    u, projected, dt_weight, dt_bias, A, skip = shapes
    N, R = A[-1], dt_weight[-1]
    steps = torch.logspace(-3, -1, dt_bias[1]).expand(dt_bias)
    bias = steps + torch.log(-torch.expm1(-steps))  # softplus of the bias gives the step
    decay = -torch.arange(1.0, N + 1).expand(A)
    return [_normal(u, 0), _normal(projected, 1), _normal(dt_weight, 2) / R**0.5, bias, decay, torch.ones(skip)]


def attention_inputs(shapes: Sequence[Any], dtype: torch.dtype) -> Inputs:
    """Normal queries, keys and values; the number of heads as it is."""
    *qkv, heads = shapes
    return [*(_normal(shape, place).to(dtype) for place, shape in enumerate(qkv)), heads]


MAKE_INPUTS: dict[str, Callable[[Sequence[Any], torch.dtype], Inputs]] = {
    "neighborhood_attention": neighborhood_attention_inputs,
    "selective_scan": channel_scan_inputs,
    "attention": attention_inputs,
}


def like(inputs: Inputs, *, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Inputs:
    """Leaves that require gradients, with the values of ``inputs``; what is no tensor stays."""
    return [
        x.detach().to(device=device, dtype=dtype).clone().requires_grad_() if isinstance(x, Tensor) else x
        for x in inputs
    ]


def _normal(shape: Sequence[int], place: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(SEED + place))
