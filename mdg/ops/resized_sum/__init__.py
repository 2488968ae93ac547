"""Sum of maps of several scales: each is resized to the size of the first, bilinearly, and added to it.

A map that is resized is as large as the finest one and holds nothing that the coarse one does not. Written to memory,
read again and added, three of them take longer than all products of a multi-scale head.

Legend: B batch, H W finest map, h w a coarser one, C channels.

A backend takes ``(finest_BHWC, coarser: tuple of [B, h, w, C], relu: bool)``, all in one dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from mdg.errors import UserError
from mdg.ops.dispatch import Backend, add_operator
from mdg.ops.resize import resize_bilinear
from mdg.ops.resized_sum.numba import numba_resized_sum, why_not, why_slower


def torch_resized_sum(finest_BHWC: Tensor, coarser: Sequence[Tensor], relu: bool) -> Tensor:
    """Backend ``torch``: resized maps, one after another."""
    size = finest_BHWC.shape[1:3]
    resized = (resize_bilinear(x_BhwC.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1) for x_BhwC in coarser)
    total_BHWC = reduce(torch.add, resized, finest_BHWC)
    return F.relu(total_BHWC) if relu else total_BHWC


OPERATOR = add_operator(
    "resized_sum",
    Backend("numba", numba_resized_sum, why_not, why_slower=why_slower, priority=20),
    Backend("torch", torch_resized_sum),
    export=torch_resized_sum,
)


def resized_sum(maps_BHWC: Sequence[Tensor], *, relu: bool = False, backend: str | None = None) -> Tensor:
    """``x_1 + sum_s resize(x_s)``, bilinear with half-pixel centres (``align_corners=False``).

    Args:
        maps_BHWC: ``[B, H_s, W_s, C]``, at least one, in one floating-point dtype; the first gives the size.
        relu: Whether what is negative in the sum becomes zero.
        backend: Overrides the configured choice for this call, see ``mdg.ops.dispatch``.

    Returns:
        ``[B, H_1, W_1, C]``. Differentiable once in every map.

    Raises:
        UserError: Batches, channels or dtypes differ, a map is empty, or the backend cannot run.
    """
    finest_BHWC, *coarser = maps_BHWC
    for x in maps_BHWC:
        fits = x.dim() == 4 and (x.shape[0], x.shape[3]) == (finest_BHWC.shape[0], finest_BHWC.shape[-1])
        if not fits or x.dtype != finest_BHWC.dtype or 0 in x.shape[1:]:
            raise UserError(
                f"resized_sum: got maps {', '.join(f'{list(x.shape)} {x.dtype}' for x in maps_BHWC)}; expected "
                "[B, H_s, W_s, C] of one dtype with equal B and C and sides of at least 1. Project and cast them first."
            )
    return OPERATOR(finest_BHWC, tuple(coarser), relu, backend=backend)
