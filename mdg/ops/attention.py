"""Attention of many queries over few keys, as the encoders use it: softmax attention without a mask.

Legend: B batch, N queries, M keys, C width, h heads, d = C/h; c queries of a chunk.

A backend takes ``(q_BNC, k_BMC, v_BMC, heads: int)``, the three tensors in one dtype, and returns ``[B, N, C]``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mdg.ops.dispatch import Backend, add_operator
from mdg.ops.onednn import convolve_rows, is_better, why_not_float32

CHUNK = 2**20  # scores held at once, 4 MB: they stay in the cache between the two products
MIN_PRODUCTS = 2**21  # below it the calls cost more than the arithmetic


def torch_attention(q_BNC: Tensor, k_BMC: Tensor, v_BMC: Tensor, heads: int) -> Tensor:
    """Backend ``torch``: PyTorch's ``scaled_dot_product_attention``."""
    q_BhNd, k_BhMd, v_BhMd = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q_BNC, k_BMC, v_BMC))
    return F.scaled_dot_product_attention(q_BhNd, k_BhMd, v_BhMd).transpose(1, 2).flatten(2)


def onednn_attention(q_BNC: Tensor, k_BMC: Tensor, v_BMC: Tensor, heads: int) -> Tensor:
    """Backend ``onednn``: for each image and chunk of queries, both products are grouped 1x1 convolutions whose
    kernels are the keys and the values. Scores and sums come out in the layout of the tokens: nothing is transposed."""
    (_, N, C), M, d = q_BNC.shape, k_BMC.shape[1], q_BNC.shape[-1] // heads
    out_BNC = torch.empty_like(q_BNC, memory_format=torch.contiguous_format)
    chunk = max(CHUNK // (heads * M), 64)
    for q_NC, k_MC, v_MC, out_NC in zip(q_BNC, k_BMC, v_BMC, out_BNC, strict=True):
        keys_hMd11 = (k_MC * d**-0.5).view(M, heads, d).transpose(0, 1).reshape(heads * M, d, 1, 1)
        values_CM11 = v_MC.t().reshape(C, M, 1, 1)
        for start in range(0, N, chunk):
            part = slice(start, start + chunk)
            scores_chM = convolve_rows(q_NC[part], keys_hMd11, groups=heads).unflatten(-1, (heads, M))
            out_NC[part] = convolve_rows(scores_chM.softmax(-1).flatten(1), values_CM11, groups=heads)
    return out_BNC


def why_not(q_BNC: Tensor, k_BMC: Tensor, v_BMC: Tensor, heads: int) -> str | None:
    """The tensors need gradients, are not float32 on a CPU, or PyTorch has no oneDNN."""
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q_BNC, k_BMC, v_BMC)):
        return "it has no backward pass"
    return why_not_float32(q_BNC, k_BMC, v_BMC)


def why_not_automatic(q_BNC: Tensor, k_BMC: Tensor, v_BMC: Tensor, heads: int) -> str | None:
    """The product is small, the graph is compiled, or the processor has a better library."""
    if torch.compiler.is_compiling():
        return "a compiled graph should not hold a loop over chunks"
    return is_better(q_BNC.numel() * k_BMC.shape[1], MIN_PRODUCTS)


OPERATOR = add_operator(
    "attention",
    Backend("onednn", onednn_attention, why_not, why_not_automatic, priority=10),
    Backend("torch", torch_attention),
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
