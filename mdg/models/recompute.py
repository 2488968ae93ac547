"""Less memory in training: activations that are cheap to compute again are not kept.

Legend: S input channels, O output channels, M rows.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mdg.ops.linear import linear, linear_gradients


class Recomputable(nn.Module):
    """A module that can keep its inputs instead of its activations and run again in the backward pass.

    Its caller runs it with :func:`run`. It must hold no BatchNorm, whose running statistics a second run would move.
    """

    recompute = False


def run(module: nn.Module, *inputs: Tensor) -> Any:
    """``module(*inputs)``, with its activations recomputed in the backward pass where that is switched on."""
    if getattr(module, "recompute", False) and torch.is_grad_enabled():
        return checkpoint(module, *inputs, use_reentrant=False)
    return module(*inputs)


def recompute_activations(model: nn.Module) -> int:
    """Switches recomputation on in every module that allows it; returns their number."""
    modules = [module for module in model.modules() if isinstance(module, Recomputable)]
    for module in modules:
        module.recompute = True
    return len(modules)


def keeps_inputs_only(x: Tensor) -> bool:
    """Whether cheap parts keep their inputs only: in float32 training on a CPU, where arithmetic is cheap and memory is
    not. On a GPU it is the other way round, and a compiler decides by itself what it computes again."""
    on_cpu = x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return torch.is_grad_enabled() and on_cpu and not torch.compiler.is_compiling()


def linear_of_gelu(x: Tensor, layer: nn.Linear) -> Tensor:
    """``layer(gelu(x))`` that keeps ``x`` only, where autograd would keep ``gelu(x)`` too: ``[..., S] -> [..., O]``.

    The expanded maps between the two linear layers of a feed-forward network are the largest of the model.
    """
    # A compiler decides by itself what it computes again.
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return layer(F.gelu(x))
    return _LinearOfGelu.apply(x, layer.weight, layer.bias)


class _LinearOfGelu(torch.autograd.Function):
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


def mix_feed_forward(x_BHWC: Tensor, fc1: nn.Linear, depthwise: nn.Conv2d, fc2: nn.Linear) -> Tensor:
    """``fc2(gelu(depthwise(fc1(x))))`` on a ``BHWC`` map that keeps ``x`` only, for training on a CPU.

    The two expanded maps are a quarter of all that a training step of the network keeps; making them again takes a
    thirtieth of its time.
    """
    weights = (fc1.weight, fc1.bias, depthwise.weight, depthwise.bias, fc2.weight, fc2.bias)
    return _MixFeedForward.apply(x_BHWC, *weights)


class _MixFeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        _, convolved = _MixFeedForward.expand(x, *weights[:4])
        return linear(F.gelu(convolved), *weights[4:])

    @staticmethod
    def expand(x: Tensor, w1: Tensor, b1: Tensor, kernel: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The expanded map ``BHWE`` before and after the depthwise convolution."""
        expanded = linear(x, w1, b1)
        padding = kernel.shape[-1] // 2
        convolved = F.conv2d(expanded.permute(0, 3, 1, 2), kernel, bias, padding=padding, groups=kernel.shape[0])
        return expanded, convolved.permute(0, 2, 3, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, b1, kernel, bias, w2, _ = ctx.saved_tensors
        needed = ctx.needs_input_grad
        expanded, convolved = _MixFeedForward.expand(x, w1, b1, kernel, bias)
        grad_gelu, *grads_fc2 = linear_gradients(grad_y, F.gelu(convolved), w2, (True, *needed[5:]))
        grad_convolved = torch.ops.aten.gelu_backward(grad_gelu, convolved)
        channels, padding = kernel.shape[0], [kernel.shape[-1] // 2] * 2
        grad_expanded, *grads_kernel = torch.ops.aten.convolution_backward(
            grad_convolved.permute(0, 3, 1, 2), expanded.permute(0, 3, 1, 2), kernel, [channels],
            [1, 1], padding, [1, 1], False, [0, 0], channels, [True, *needed[3:5]],
        )  # fmt: skip
        grad_x, *grads_fc1 = linear_gradients(grad_expanded.permute(0, 2, 3, 1), x, w1, needed[:3])
        return grad_x, *grads_fc1, *grads_kernel, *grads_fc2
