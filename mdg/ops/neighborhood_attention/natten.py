"""Neighborhood attention from the optional NATTEN library (fused CUDA kernels).

NATTEN has fused kernels only where its compiled part, ``libnatten``, is installed. Without it every call goes through
Flex Attention, unfused, with one score for each pair of positions: right, but only for small maps.

Legend: B batch, H height, W width, h heads, d head dim.
"""

from __future__ import annotations

import functools
import importlib

import torch
from torch import Tensor

from mdg.ops.dispatch import constant_while_tracing

UNFUSED_HEAD_DIMS = (8, 16, 32, 64, 128, 256, 512)


def natten_neighborhood_attention(
    q_BHWhd: Tensor, k_BHWhd: Tensor, v_BHWhd: Tensor, kernel_size: int, scale: float
) -> Tensor:
    """Backend ``natten``: see ``mdg.ops.neighborhood_attention``. By keyword: the order of arguments changed before."""
    from natten import na2d

    if scale < 0:  # fused kernels take the maximum before they scale
        q_BHWhd, scale = -q_BHWhd, -scale
    return na2d(query=q_BHWhd, key=k_BHWhd, value=v_BHWhd, kernel_size=_window(q_BHWhd, kernel_size), scale=scale)


def why_not(q_BHWhd: Tensor, k_BHWhd: Tensor, v_BHWhd: Tensor, kernel_size: int, scale: float) -> str | None:
    """Why NATTEN cannot run here at all."""
    device = q_BHWhd.device.type
    if device not in ("cuda", "cpu"):
        return f"NATTEN runs on CUDA and CPU tensors, got {device}"
    if device == "cpu" and _needs_grad(q_BHWhd, k_BHWhd, v_BHWhd):
        return "NATTEN has no backward pass on CPU tensors"
    if min(_window(q_BHWhd, kernel_size)) < 2:
        return f"NATTEN needs windows of at least 2x2, got {_window(q_BHWhd, kernel_size)}"
    if q_BHWhd.shape[0] == 0:
        return "NATTEN takes no empty batch"
    if scale == 0:
        return "NATTEN reads scale=0 as the default scale"
    failure = _import_failure()
    if failure is not None:
        return f"the library natten cannot be imported ({failure})"
    return _unsupported_numbers(q_BHWhd)


def why_not_automatic(q_BHWhd: Tensor, k_BHWhd: Tensor, v_BHWhd: Tensor, kernel_size: int, scale: float) -> str | None:
    """Why it is left alone although NATTEN can run: memory for the scores of all pairs."""
    if q_BHWhd.device.type != "cuda":
        return "on CPU, NATTEN computes the scores of all pairs of positions"
    if not _has_libnatten():
        return "natten is installed without libnatten, so it computes the scores of all pairs of positions"
    return None


def _unsupported_numbers(q_BHWhd: Tensor) -> str | None:
    head_dim = q_BHWhd.shape[-1]
    if q_BHWhd.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"NATTEN takes float32, float16 and bfloat16, got {q_BHWhd.dtype}"
    fused = q_BHWhd.device.type == "cuda" and _has_libnatten()
    if fused and head_dim % 8:
        return f"NATTEN needs a head_dim that is a multiple of 8, got {head_dim}"
    if not fused and head_dim not in UNFUSED_HEAD_DIMS:
        return f"NATTEN's unfused fallback needs a head_dim in {UNFUSED_HEAD_DIMS}, got {head_dim}"
    return None


def _window(x_BHWhd: Tensor, kernel_size: int) -> tuple[int, int]:
    # NATTEN refuses a window larger than the map.
    return min(kernel_size, x_BHWhd.shape[1]), min(kernel_size, x_BHWhd.shape[2])


def _needs_grad(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


@constant_while_tracing
def _import_failure() -> str | None:
    return _try_import()


@constant_while_tracing
def _has_libnatten() -> bool:
    return bool(getattr(importlib.import_module("natten"), "HAS_LIBNATTEN", False))


@functools.cache
def _try_import() -> str | None:
    # Any error counts: a library built for another torch may fail in ways other than ImportError.
    try:
        return None if hasattr(importlib.import_module("natten"), "na2d") else "it has no function na2d"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
