"""How a pair of custom operators, forward and backward, becomes one that PyTorch differentiates and compiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.library import CustomOpDef


def make_differentiable(forward: CustomOpDef, backward: CustomOpDef, tensors: int) -> None:
    """Registers shapes and gradients.

    Args:
        forward: ``(*inputs) -> y``, where ``y`` has the shape and dtype of the first input.
        backward: ``(grad_y, *inputs) -> gradients`` of the tensors among the inputs, in their order.
        tensors: How many of the inputs are tensors; they come first, numbers and flags follow.
    """

    def empty_output(*inputs: Any) -> Tensor:
        return inputs[0].new_empty(inputs[0].shape)

    def empty_gradients(grad_y: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
        return tuple(x.new_empty(x.shape) for x in inputs[:tensors])

    def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:tensors])
        ctx.numbers = inputs[tensors:]

    def run_backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        run: Callable[..., tuple[Tensor, ...]] = backward
        return (*run(grad_y, *ctx.saved_tensors, *ctx.numbers), *(None for _ in ctx.numbers))

    forward.register_fake(empty_output)
    backward.register_fake(empty_gradients)
    forward.register_autograd(run_backward, setup_context=save)


def is_plain_call(*tensors: Tensor) -> bool:
    """Whether nothing is differentiated, traced or only pretended, so that a kernel may run without its operator.

    The first call of a custom operator imports PyTorch's compiler, which takes two seconds: as long as all the rest
    between the imports and the mask of a pair.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return all(type(x) in (Tensor, nn.Parameter) for x in tensors)
