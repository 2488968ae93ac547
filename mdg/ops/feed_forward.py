"""The two feed-forward networks of the model, which keep their inputs instead of their expanded maps.

The expanded maps between the two linear layers of a feed-forward network are the largest of the model, and cheap to
compute again.

Legend: B batch, H W map, S input channels, E expanded channels, O output channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mdg.ops.linear import linear, linear_gradients
from mdg.ops.modes import keeps_inputs_only


def gelu_linear(x: Tensor, weight_OS: Tensor, bias_O: Tensor | None) -> Tensor:
    """``gelu(x) W^T + b``: ``[..., S] -> [..., O]``. Keeps ``x`` only, where autograd would keep ``gelu(x)`` too."""
    # A compiler decides by itself what it computes again.
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return linear(F.gelu(x), weight_OS, bias_O)
    return _GeluLinear.apply(x, weight_OS, bias_O)


class _GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OS: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight_OS)
        return linear(F.gelu(x), weight_OS, bias_O)  # under autocast in its dtype

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_OS = ctx.saved_tensors
        grad_gelu, grad_weight, grad_bias = linear_gradients(grad_y, F.gelu(x), weight_OS, ctx.needs_input_grad)
        grad_x = None if grad_gelu is None else torch.ops.aten.gelu_backward(grad_gelu.to(x.dtype), x)
        return grad_x, grad_weight, grad_bias


def mix_feed_forward(
    x_BHWC: Tensor,
    weight_EC: Tensor,
    bias_E: Tensor | None,
    kernel_E1kk: Tensor,
    kernel_bias_E: Tensor | None,
    weight_OE: Tensor,
    bias_O: Tensor | None,
) -> Tensor:
    """``gelu(DW(x W1^T + b1)) W2^T + b2`` with a depthwise convolution ``DW``, on a map (Xie et al., SegFormer, eq. 3).

    In float32 training on a CPU only ``x`` is kept: the two expanded maps are a quarter of all that a training step of
    the network would keep, and making them again takes a thirtieth of its time.

    Args:
        x_BHWC: ``[B, H, W, C]``.
        weight_EC, bias_E, weight_OE, bias_O: The two linear layers.
        kernel_E1kk, kernel_bias_E: The convolution, with an odd side ``k``; it keeps the size of the map.
    """
    weights = (weight_EC, bias_E, kernel_E1kk, kernel_bias_E)
    if keeps_inputs_only(x_BHWC):
        return _MixFeedForward.apply(x_BHWC, *weights, weight_OE, bias_O)
    return gelu_linear(_expand(x_BHWC, *weights)[1], weight_OE, bias_O)


def _expand(
    x_BHWC: Tensor, weight_EC: Tensor, bias_E: Tensor | None, kernel_E1kk: Tensor, kernel_bias_E: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The expanded map ``BHWE`` before and after the depthwise convolution."""
    expanded = linear(x_BHWC, weight_EC, bias_E)
    padding, groups = kernel_E1kk.shape[-1] // 2, kernel_E1kk.shape[0]
    convolved = F.conv2d(expanded.permute(0, 3, 1, 2), kernel_E1kk, kernel_bias_E, padding=padding, groups=groups)
    return expanded, convolved.permute(0, 2, 3, 1)


class _MixFeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        _, convolved = _expand(x, *weights[:4])
        return linear(F.gelu(convolved), *weights[4:])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, b1, kernel, bias, w2, _ = ctx.saved_tensors
        needed = ctx.needs_input_grad
        expanded, convolved = _expand(x, w1, b1, kernel, bias)
        grad_gelu, *grads_fc2 = linear_gradients(grad_y, F.gelu(convolved), w2, (True, *needed[5:]))
        grad_convolved = torch.ops.aten.gelu_backward(grad_gelu, convolved)
        channels, padding = kernel.shape[0], [kernel.shape[-1] // 2] * 2
        grad_expanded, *grads_kernel = torch.ops.aten.convolution_backward(
            grad_convolved.permute(0, 3, 1, 2), expanded.permute(0, 3, 1, 2), kernel, [channels],
            [1, 1], padding, [1, 1], False, [0, 0], channels, [True, *needed[3:5]],
        )  # fmt: skip
        grad_x, *grads_fc1 = linear_gradients(grad_expanded.permute(0, 2, 3, 1), x, w1, needed[:3])
        return grad_x, *grads_fc1, *grads_kernel, *grads_fc2
