"""Neighborhood attention on a CPU through numba: compiled at first use, cached on disk, no compiler needed.

Heads and bands of map rows go through on a few threads; the bands follow from the sizes of the input, whatever the
number of threads, so that a result does not depend on it. Legend: see ``mdg.ops.neighborhood_attention``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mdg.ops.autograd import is_plain_call, make_differentiable
from mdg.ops.cpu_kernels import LOG2_E, equal_chunks, flat, run_chunks, why_not_float32

BAND_ROWS = 24  # more: less copying, since bands overlap by a window; fewer: smaller copies, more items for threads
PRODUCTS_PER_CHUNK = 1 << 20  # keeps a call of a kernel well above what it costs to hand it to a thread


def numba_neighborhood_attention(
    q_BHWhd: Tensor, k_BHWhd: Tensor, v_BHWhd: Tensor, kernel_size: int, scale: float
) -> Tensor:
    """Backend ``numba``: see ``mdg.ops.neighborhood_attention``."""
    run = _forward if is_plain_call(q_BHWhd, k_BHWhd, v_BHWhd) else attention_forward
    return run(q_BHWhd, k_BHWhd, v_BHWhd, kernel_size, scale)


def why_not(q_BHWhd: Tensor, k_BHWhd: Tensor, v_BHWhd: Tensor, kernel_size: int, scale: float) -> str | None:
    """numba cannot be used, the tensors are not on a CPU, or they are not float32."""
    return why_not_float32(q_BHWhd)


def _forward(q_BHWhd: Tensor, k_BHWhd: Tensor, v_BHWhd: Tensor, kernel_size: int, scale: float) -> Tensor:
    from mdg.ops.neighborhood_attention.numba_kernels import forward  # importing numba takes a second

    out_BHWhd = torch.empty_like(q_BHWhd, memory_format=torch.contiguous_format)
    inputs = [*flat(q_BHWhd, k_BHWhd, v_BHWhd), out_BHWhd.numpy(), kernel_size, scale * LOG2_E]
    bands = _bands(q_BHWhd.shape, kernel_size)
    run_chunks(
        lambda chunk, start, stop: forward(*inputs, 0, 1, bands, start, stop),
        _chunks(q_BHWhd.shape, kernel_size, bands, bands),
    )
    return out_BHWhd


attention_forward = torch.library.custom_op("mdg::neighborhood_attention", _forward, mutates_args=())


@torch.library.custom_op("mdg::neighborhood_attention_backward", mutates_args=())
def attention_backward(
    grad_BHWhd: Tensor, q_BHWhd: Tensor, k_BHWhd: Tensor, v_BHWhd: Tensor, kernel_size: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of the softmax are computed again from q and k; nothing but the inputs is saved."""
    from mdg.ops.neighborhood_attention.numba_kernels import backward

    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q_BHWhd, k_BHWhd, v_BHWhd))
    inputs = [*flat(grad_BHWhd, q_BHWhd, k_BHWhd, v_BHWhd), dq.numpy(), dk.numpy(), dv.numpy()]
    inputs += [kernel_size, scale, scale * LOG2_E]
    bands = _bands(q_BHWhd.shape, kernel_size)
    # Two neighbouring bands share some keys, to whose gradients both contribute: even bands first, then odd ones.
    for parity in range(min(2, bands)):

        def run(chunk: int, start: int, stop: int, parity: int = parity) -> None:
            backward(*inputs, parity, 2, bands, start, stop)

        run_chunks(run, _chunks(q_BHWhd.shape, kernel_size, bands, len(range(parity, bands, 2))))
    return dq, dk, dv


def _bands(shape: torch.Size, kernel_size: int) -> int:
    """Number of bands of about equal height, at least k = ``kernel_size`` unless there is only one.

    That is what keeps bands of one parity apart in the backward. Say a band ends before row y and another follows
    behind a third, from row z >= y + k on. Windows of row i start at ``i - k//2``, shifted to 0 .. H - k. Row z is not
    shifted up, because at least k rows follow, so the second starts reading at ``z - k//2 >= y + k//2 + 1``. Row y - 1
    is shifted neither down (it has k - 1 rows before it) nor up, so the first stops before ``y + k//2``.
    """
    return max(1, shape[1] // max(BAND_ROWS, kernel_size))


def _chunks(shape: torch.Size, kernel_size: int, bands: int, count: int) -> list[tuple[int, int]]:
    """Chunks of the items of ``count`` of all ``bands``."""
    B, H, W, h, d = shape
    products = H // bands * W * min(kernel_size, H) * min(kernel_size, W) * d
    return equal_chunks(B * h * count, max(1, PRODUCTS_PER_CHUNK // products))


make_differentiable(attention_forward, attention_backward, tensors=3)
