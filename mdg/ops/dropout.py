"""Dropout on a CPU with random numbers of 16 bits, and dropout of channels that a linear layer reads.

PyTorch draws a number for every element from a generator whose single draws take longer than all else of a dropout. One
draw of 64 bits serves four elements here, and the mask that the backward pass needs takes a quarter of the memory.

Legend: B images, N positions of an image, S input channels, O output channels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 1 << 16  # the probability is rounded to one of them


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero with probability ``p``, rounded to 1/65536, else ``x / (1 - p)`` (Srivastava et al., JMLR 2014).

    Args:
        x: Any shape, floating point.
        p: From 0 to 1.

    Returns:
        As ``x``; off a CPU, and where a compiler traces, PyTorch's own dropout.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return F.dropout(x, p)
    dropped = round(p * LEVELS)
    if dropped == LEVELS:
        return x * 0.0
    return _Dropout.apply(x, _kept(x.shape, dropped), LEVELS / (LEVELS - dropped))


def _kept(shape: torch.Size, dropped: int) -> Tensor:
    """A mask of a shape, False with probability ``dropped / 65536``."""
    count = math.prod(shape)
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)  # all 64 bits
    return (words.view(torch.int16)[:count] >= dropped - LEVELS // 2).view(shape)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.scale = scale
        return _mask(x, kept, scale)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (kept,) = ctx.saved_tensors
        return _mask(grad, kept, ctx.scale), None, None


def _mask(x: Tensor, kept: Tensor, scale: float) -> Tensor:
    # Products of floats and truth values are several times slower than both steps of this.
    return kept.to(x.dtype).mul_(scale).mul_(x)


def linear_of_kept(x_BNS: Tensor, kept_BS: Tensor, weight_OS: Tensor, bias_O: Tensor | None) -> Tensor:
    """``(k x) W^T + b``, with a factor ``k`` per image and channel: ``[B, N, S] -> [B, N, O]`` in the dtype of ``x``.

    The matrix of an image takes the factors, not its map: for few outputs the one is smaller than the other by orders
    of magnitude.
    """
    return _LinearOfKept.apply(x_BNS, kept_BS, weight_OS, bias_O)


class _LinearOfKept(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BNS: Tensor, kept_BS: Tensor, weight_OS: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_BNS, kept_BS, weight_OS)
        y_BNO = x_BNS @ _of_image(kept_BS, weight_OS, x_BNS.dtype).mT
        return y_BNO if bias_O is None else y_BNO.add_(bias_O)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_BNO: Tensor) -> tuple[Tensor | None, ...]:
        x_BNS, kept_BS, weight_OS = ctx.saved_tensors
        needed, dtype = ctx.needs_input_grad, weight_OS.dtype
        grad_x = grad_BNO @ _of_image(kept_BS, weight_OS, grad_BNO.dtype) if needed[0] else None
        # What autograd would do, the transpose of this product, takes MKL nine times as long.
        grad_weight = (
            torch.einsum("bs,bos->os", kept_BS.to(dtype), (grad_BNO.mT @ x_BNS).to(dtype)) if needed[2] else None
        )
        return grad_x, None, grad_weight, grad_BNO.sum((0, 1)).to(dtype) if needed[3] else None


def _of_image(kept_BS: Tensor, weight_OS: Tensor, dtype: torch.dtype) -> Tensor:
    """``[B, O, S]``."""
    return (kept_BS[:, None] * weight_OS).to(dtype)
