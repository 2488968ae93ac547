"""Sum of resized maps on a CPU through numba: one pass over memory, rows of the coarse maps stay in the cache.

Legend: see ``mdg.ops.resized_sum``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mdg.ops.autograd import is_plain_call
from mdg.ops.cpu_kernels import equal_chunks, run_chunks, why_not_float32

MIN_NUMBERS = 2**16  # of the sum; below it the call costs more than the arithmetic
NUMBERS_PER_CHUNK = 2**17  # keeps a call of the kernel well above what it costs to hand it to a thread


def numba_resized_sum(finest_BHWC: Tensor, coarser: Sequence[Tensor], relu: bool) -> Tensor:
    """Backend ``numba``: see ``mdg.ops.resized_sum``."""
    run = _forward if is_plain_call(finest_BHWC, *coarser) else resized_sum_forward
    return run(finest_BHWC, coarser, relu)


def why_not(finest_BHWC: Tensor, coarser: Sequence[Tensor], relu: bool) -> str | None:
    """There is nothing to resize, numba cannot be used, the tensors are not on a CPU, or they are not float32."""
    return why_not_float32(finest_BHWC) if coarser else "there is one map"


def why_slower(finest_BHWC: Tensor, coarser: Sequence[Tensor], relu: bool) -> str | None:
    """The maps are small."""
    return "the maps are small" if finest_BHWC.numel() < MIN_NUMBERS else None


def _forward(finest_BHWC: Tensor, coarser: Sequence[Tensor], relu: bool) -> Tensor:
    from mdg.ops.resized_sum.numba_kernels import forward  # importing numba takes a second

    out_BHWC = torch.empty_like(finest_BHWC, memory_format=torch.contiguous_format)
    # As arrays of a fixed number of axes they would be one kernel per layout; contiguous ones are one in all.
    finest, *rest = (x.detach().contiguous().numpy() for x in (finest_BHWC, *coarser))
    inputs = [finest, tuple(rest), out_BHWC.numpy(), relu]
    B, H, W, C = out_BHWC.shape
    run_chunks(
        lambda chunk, start, stop: forward(*inputs, start, stop),
        equal_chunks(B * H, max(1, NUMBERS_PER_CHUNK // (W * C))),
    )
    return out_BHWC


resized_sum_forward = torch.library.custom_op("mdg::resized_sum", _forward, mutates_args=())


@resized_sum_forward.register_fake
def _(finest_BHWC: Tensor, coarser: Sequence[Tensor], relu: bool) -> Tensor:
    return finest_BHWC.new_empty(finest_BHWC.shape)


def _save_for_backward(ctx: Any, inputs: tuple[Tensor, Sequence[Tensor], bool], output: Tensor) -> None:
    _, coarser, relu = inputs
    ctx.sizes = [x.shape[1:3] for x in coarser]
    ctx.save_for_backward(*([output] if relu else []))


def _backward(ctx: Any, grad_BHWC: Tensor) -> tuple[Tensor, list[Tensor], None]:
    if ctx.saved_tensors:
        (output,) = ctx.saved_tensors
        grad_BHWC = torch.ops.aten.threshold_backward(grad_BHWC, output, 0)
    grad_BCHW = grad_BHWC.permute(0, 3, 1, 2)
    (B, C), size = grad_BCHW.shape[:2], list(grad_BCHW.shape[2:])
    grads = [
        torch.ops.aten.upsample_bilinear2d_backward(grad_BCHW, size, [B, C, *small], False).permute(0, 2, 3, 1)
        for small in ctx.sizes
    ]
    return grad_BHWC, grads, None


resized_sum_forward.register_autograd(_backward, setup_context=_save_for_backward)
