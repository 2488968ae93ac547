"""Neighborhood attention: every query attends to the ``k x k`` keys around its own position.

Legend: B batch, H height, W width, h heads, d head dim.

A backend takes ``(q_BHWhd, k_BHWhd, v_BHWhd, kernel_size: int, scale: float)``, the three tensors in one dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mdg.errors import UserError
from mdg.ops.dispatch import Backend, add_operator
from mdg.ops.modes import autocast_dtype
from mdg.ops.neighborhood_attention import natten as natten_backend
from mdg.ops.neighborhood_attention import numba as numba_backend
from mdg.ops.neighborhood_attention import triton as triton_backend
from mdg.ops.neighborhood_attention.export import exportable_neighborhood_attention
from mdg.ops.neighborhood_attention.tiled import tiled_neighborhood_attention

MIN_PRODUCTS = 2**18  # below it nothing that was measured is looked up


def describe(
    q_BHWhd: Tensor, k_BHWhd: Tensor, v_BHWhd: Tensor, kernel_size: int, scale: float
) -> tuple[int, ...] | None:
    """Queries ``B*H*W*h``, keys of a window, d."""
    B, H, W, h, d = q_BHWhd.shape
    queries, window = B * H * W * h, min(kernel_size, H) * min(kernel_size, W)
    return (queries, window, d) if queries * window * d >= MIN_PRODUCTS else None


OPERATOR = add_operator(
    "neighborhood_attention",
    Backend("numba", numba_backend.numba_neighborhood_attention, numba_backend.why_not, priority=20),
    Backend(
        "natten",
        natten_backend.natten_neighborhood_attention,
        natten_backend.why_not,
        natten_backend.why_not_automatic,
        priority=10,
    ),
    Backend(
        "triton",
        triton_backend.triton_neighborhood_attention,
        triton_backend.why_not,
        triton_backend.why_not_automatic,
        priority=5,
    ),
    Backend("tiled", tiled_neighborhood_attention),
    export=exportable_neighborhood_attention,
    describe=describe,
)


def neighborhood_attention(
    q_BHWhd: Tensor,
    k_BHWhd: Tensor,
    v_BHWhd: Tensor,
    *,
    kernel_size: int,
    scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Softmax attention of each position over its ``kernel_size x kernel_size`` neighbourhood.

    At a border the window shifts inward and keeps all its keys (no zero padding); on a side shorter than
    ``kernel_size`` the window is the whole side. Hassani et al., Neighborhood Attention Transformer, CVPR 2023.

    Args:
        q_BHWhd, k_BHWhd, v_BHWhd: ``[B, H, W, heads, head_dim]``, floating point, equal shapes. Under autocast they
            are cast to the autocast dtype (float64 stays); otherwise to their common promoted dtype.
        kernel_size: odd side of the window.
        scale: factor on the scores before the softmax; ``head_dim ** -0.5`` by default.
        backend: overrides the configured choice for this call, see ``mdg.ops.dispatch``.

    Returns:
        ``[B, H, W, heads, head_dim]`` in the dtype the inputs were cast to. Differentiable once.

    Raises:
        UserError: shapes differ or are not 5-D, a side is empty, ``kernel_size`` is even, or the backend cannot run.
    """
    _check_shapes(q_BHWhd, k_BHWhd, v_BHWhd)
    _check_kernel_size(kernel_size)
    dtype = _common_dtype(q_BHWhd, k_BHWhd, v_BHWhd)
    q_BHWhd, k_BHWhd, v_BHWhd = q_BHWhd.to(dtype), k_BHWhd.to(dtype), v_BHWhd.to(dtype)
    scale = q_BHWhd.shape[-1] ** -0.5 if scale is None else float(scale)
    return OPERATOR(q_BHWhd, k_BHWhd, v_BHWhd, kernel_size, scale, backend=backend)


def _check_shapes(q: Tensor, k: Tensor, v: Tensor) -> None:
    if q.dim() != 5 or k.shape != q.shape or v.shape != q.shape:
        raise UserError(
            f"neighborhood_attention: got q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}; "
            "expected three equal shapes [B, H, W, heads, head_dim]. Split channels into heads and put them last."
        )
    if 0 in q.shape[1:]:
        raise UserError(
            f"neighborhood_attention: got shape {list(q.shape)}; expected H, W, heads and head_dim of at least 1. "
            "Feed a larger image."
        )


def _check_kernel_size(kernel_size: int) -> None:
    if not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
        raise UserError(
            f"neighborhood_attention: got kernel_size={kernel_size!r}; expected an odd integer of at least 1, "
            "so that the window has a centre. Use an odd number such as 3, 5, 7 or 13."
        )


def _common_dtype(q: Tensor, k: Tensor, v: Tensor) -> torch.dtype:
    dtype = torch.promote_types(torch.promote_types(q.dtype, k.dtype), v.dtype)
    if not dtype.is_floating_point:
        raise UserError(f"neighborhood_attention: got dtype {dtype}; expected floating point. Cast the inputs first.")
    return dtype if dtype == torch.float64 else autocast_dtype(q) or dtype
