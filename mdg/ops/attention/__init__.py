"""Attention of many queries over few keys, as the encoders use it: softmax attention without a mask.

Legend: B batch, N queries, M keys, C width, h heads, d = C/h.

A backend takes ``(q_BNC, k_BMC, v_BMC, heads: int)``, the three tensors in one dtype, and returns ``[B, N, C]``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mdg.ops.attention import numba as attention_numba
from mdg.ops.attention.numba import numba_attention
from mdg.ops.dispatch import Backend, add_operator
from mdg.ops.linear.onednn import is_better

MIN_PRODUCTS = 2**21  # below it the call costs more than the arithmetic


def torch_attention(q_BNC: Tensor, k_BMC: Tensor, v_BMC: Tensor, heads: int) -> Tensor:
    """Backend ``torch``: PyTorch's ``scaled_dot_product_attention``."""
    q_BhNd, k_BhMd, v_BhMd = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q_BNC, k_BMC, v_BMC))
    return F.scaled_dot_product_attention(q_BhNd, k_BhMd, v_BhMd).transpose(1, 2).flatten(2)


def why_slower(q_BNC: Tensor, k_BMC: Tensor, v_BMC: Tensor, heads: int) -> str | None:
    """The product is small, or the processor has a better library."""
    return is_better(q_BNC.numel() * k_BMC.shape[1], MIN_PRODUCTS)


def describe(q_BNC: Tensor, k_BMC: Tensor, v_BMC: Tensor, heads: int) -> tuple[int, ...] | None:
    """B*h, N, M, d."""
    (B, N, C), M = q_BNC.shape, k_BMC.shape[1]
    return (B * heads, N, M, C // heads) if B * N * C * M >= MIN_PRODUCTS else None


OPERATOR = add_operator(
    "attention",
    Backend("numba", numba_attention, attention_numba.why_not, why_slower=why_slower, priority=20),
    Backend("torch", torch_attention),
    export=torch_attention,
    describe=describe,
)


def attention(q_BNC: Tensor, k_BMC: Tensor, v_BMC: Tensor, *, heads: int, backend: str | None = None) -> Tensor:
    """``softmax(q k^T / sqrt(d)) v`` per head (Vaswani et al., 2017).

    Args:
        q_BNC: Queries ``[B, N, C]``; head ``i`` is the channels ``i d .. (i + 1) d - 1``.
        k_BMC, v_BMC: Keys and values ``[B, M, C]``, in the dtype of the queries.
        heads: Divides C.
        backend: Overrides the configured choice for this call, see ``mdg.ops.dispatch``.

    Returns:
        ``[B, N, C]``.
    """
    return OPERATOR(q_BNC, k_BMC, v_BMC, heads, backend=backend)
