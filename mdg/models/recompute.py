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
