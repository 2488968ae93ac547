"""Attention of the encoders on a CPU through numba: compiled at first use, cached on disk, no compiler needed.

Heads and segments of the queries go through on a few threads; the segments follow from the sizes of the input, whatever
the number of threads, so that a result does not depend on it. Legend: see ``mdg.ops.attention``; S segments.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mdg.ops.autograd import is_plain_call
from mdg.ops.cpu_kernels import LOG2_E, equal_chunks, flat, run_chunks, why_not_float32

SEGMENT = 640  # queries; more: keys are copied less often; fewer: more items for threads
BLOCK = 96  # queries of a block of the kernel
MAX_SEGMENTS = 32  # in the backward pass each has gradients of all keys and values of its own


def numba_attention(q_BNC: Tensor, k_BMC: Tensor, v_BMC: Tensor, heads: int) -> Tensor:
    """Backend ``numba``: see ``mdg.ops.attention``."""
    q_BNhd, k_BMhd, v_BMhd = (x.unflatten(-1, (heads, -1)) for x in (q_BNC, k_BMC, v_BMC))
    inputs = (q_BNhd, k_BMhd, v_BMhd)
    return (_forward if is_plain_call(*inputs) else attention_forward)(*inputs)[0].flatten(2)


def why_not(q_BNC: Tensor, k_BMC: Tensor, v_BMC: Tensor, heads: int) -> str | None:
    """numba cannot be used, the tensors are not on a CPU, or they are not float32."""
    return why_not_float32(q_BNC)


def _forward(q_BNhd: Tensor, k_BMhd: Tensor, v_BMhd: Tensor) -> tuple[Tensor, Tensor]:
    """The result ``[B, N, h, d]``, and ``log2 sum_m exp(q_n . k_m / sqrt(d))`` ``[B, h, N]``."""
    from mdg.ops.attention.numba_kernels import forward

    B, N, h, d = q_BNhd.shape
    out_BNhd = torch.empty_like(q_BNhd, memory_format=torch.contiguous_format)
    lse_BhN = q_BNhd.new_empty(B, h, N)
    segment = _segment(N)
    inputs = [*flat(q_BNhd, k_BMhd, v_BMhd), k_BMhd.shape[1], out_BNhd.numpy(), lse_BhN.numpy()]
    inputs += [d**-0.5 * LOG2_E, segment]
    run_chunks(lambda chunk, start, stop: forward(*inputs, start, stop), _chunks(q_BNhd, segment))
    return out_BNhd, lse_BhN


attention_forward = torch.library.custom_op("mdg::attention", _forward, mutates_args=())


@torch.library.custom_op("mdg::attention_backward", mutates_args=())
def attention_backward(
    grad_BNhd: Tensor, q_BNhd: Tensor, k_BMhd: Tensor, v_BMhd: Tensor, out_BNhd: Tensor, lse_BhN: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v; scores and weights are computed again."""
    from mdg.ops.attention.numba_kernels import backward

    N, d = q_BNhd.shape[1], q_BNhd.shape[3]
    segment = _segment(N)
    dq_BNhd = torch.empty_like(q_BNhd, memory_format=torch.contiguous_format)
    dk_SBMhd, dv_SBMhd = (x.new_empty(-(-N // segment), *x.shape) for x in (k_BMhd, v_BMhd))
    inputs = flat(grad_BNhd, q_BNhd, k_BMhd, v_BMhd, out_BNhd)
    inputs += [x.numpy() for x in (lse_BhN, dq_BNhd, dk_SBMhd, dv_SBMhd)]
    inputs += [d**-0.5, d**-0.5 * LOG2_E, segment]
    run_chunks(lambda chunk, start, stop: backward(*inputs, start, stop), _chunks(q_BNhd, segment))
    return dq_BNhd, dk_SBMhd.sum(0), dv_SBMhd.sum(0)


def _segment(N: int) -> int:
    """Queries of a segment: about :data:`SEGMENT`, whole blocks of the kernel, and about equally many in all."""
    segments = min(max(1, round(N / SEGMENT)), MAX_SEGMENTS)
    return -(-N // (segments * BLOCK)) * BLOCK


def _chunks(q_BNhd: Tensor, segment: int) -> list[tuple[int, int]]:
    # Items do not depend on one another, so a chunk may have as many as suits the threads.
    B, N, h, _ = q_BNhd.shape
    items = B * h * -(-N // segment)
    return equal_chunks(items, max(1, items // (4 * torch.get_num_threads())))


@attention_forward.register_fake
def _(q_BNhd: Tensor, k_BMhd: Tensor, v_BMhd: Tensor) -> tuple[Tensor, Tensor]:
    B, N, h, _ = q_BNhd.shape
    return q_BNhd.new_empty(q_BNhd.shape), q_BNhd.new_empty(B, h, N)


@attention_backward.register_fake
def _(grad_BNhd: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in inputs[:3])


def _save_for_backward(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _backward(ctx: Any, grad_BNhd: Tensor, grad_lse: Tensor) -> tuple[Tensor, ...]:
    return attention_backward(grad_BNhd, *ctx.saved_tensors)


attention_forward.register_autograd(_backward, setup_context=_save_for_backward)
