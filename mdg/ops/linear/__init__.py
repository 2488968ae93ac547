"""Linear layers: ``y = x W^T + b`` on rows.

A matrix product goes to the BLAS that PyTorch was built with. On x86 processors that is MKL, which on an AMD processor
takes a path with half-width vectors; oneDNN, the other library inside PyTorch, does not. It serves convolutions, and a
linear layer is a 1x1 convolution of an image whose rows are the rows of ``x``: same memory, no copy.

Legend: S input width, O output width, M rows.

A backend takes ``(x, weight_OS, bias_O | None)`` and returns ``[..., O]``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mdg.ops.dispatch import Backend, add_operator
from mdg.ops.linear.onednn import as_image, as_rows, convolve_rows, has_one_thread, is_better, why_not_float32

MIN_PRODUCTS = 2**18  # below it the call costs more than the arithmetic


def onednn_linear(x: Tensor, weight_OS: Tensor, bias_O: Tensor | None) -> Tensor:
    """Backend ``onednn``: see :func:`linear`."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _OneDnnLinear.apply(x, weight_OS, bias_O)
    return convolve_rows(x, weight_OS[:, :, None, None], bias_O)


def why_not(x: Tensor, weight_OS: Tensor, bias_O: Tensor | None) -> str | None:
    """The tensors are not float32 on a CPU, or PyTorch has no oneDNN."""
    return why_not_float32(x, weight_OS)


def why_slower(x: Tensor, weight_OS: Tensor, bias_O: Tensor | None) -> str | None:
    """The product is small, or the processor has a better library, or PyTorch would not take oneDNN in one thread."""
    reason = is_better(x.numel() * weight_OS.shape[0], MIN_PRODUCTS)
    if reason is None and has_one_thread():
        return "in one thread PyTorch hands convolutions of 1x1 to its own matrix product"
    return reason


def describe(x: Tensor, weight_OS: Tensor, bias_O: Tensor | None) -> tuple[int, ...] | None:
    """M, S, O."""
    outputs, inputs = weight_OS.shape
    numbers = x.numel()
    return (numbers // inputs, inputs, outputs) if numbers * outputs >= MIN_PRODUCTS else None


OPERATOR = add_operator(
    "linear",
    Backend("onednn", onednn_linear, why_not, why_slower=why_slower, priority=10),
    Backend("torch", F.linear),
    export=F.linear,
    describe=describe,
)


def linear(x: Tensor, weight_OS: Tensor, bias_O: Tensor | None = None, *, backend: str | None = None) -> Tensor:
    """``x W^T + b``: ``[..., S] -> [..., O]``, as ``torch.nn.functional.linear``, which raises on wrong shapes.

    Args:
        x: ``[..., S]``.
        weight_OS, bias_O: As in ``torch.nn.Linear``.
        backend: Overrides the configured choice for this call, see ``mdg.ops.dispatch``.
    """
    return OPERATOR(x, weight_OS, bias_O, backend=backend)


def linear_gradients(
    grad: Tensor, x: Tensor, weight_OS: Tensor, needed: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of :func:`linear` with respect to input, weight and bias; None for what is not ``needed``.

    Where backends are chosen by measured times, the backward ones decide here.

    Args:
        grad: Gradient of the output, ``[..., O]``.
        x: The input, ``[..., S]``, in the dtype of the computation.
    """
    if x.dtype == grad.dtype and OPERATOR.choose(x, weight_OS, None, phase="backward").name == "onednn":
        return _onednn_gradients(grad, x, weight_OS, needed)
    grad_x = grad @ weight_OS.to(grad.dtype) if needed[0] else None
    grad_weight = grad.flatten(0, -2).t() @ x.to(grad.dtype).flatten(0, -2) if needed[1] else None
    return grad_x, grad_weight, _bias_gradient(grad) if needed[2] else None


def _onednn_gradients(
    grad: Tensor, x: Tensor, weight_OS: Tensor, needed: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    # The bias gradient is a sum of its own: oneDNN's costs as much as its weight gradient.
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        as_image(grad), as_image(x), weight_OS[:, :, None, None], None,
        [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [*needed[:2], False],
    )  # fmt: skip
    return (
        None if grad_x is None else as_rows(grad_x, x.shape[:-1]),
        None if grad_weight is None else grad_weight.reshape(weight_OS.shape),
        _bias_gradient(grad) if needed[2] else None,
    )


def _bias_gradient(grad: Tensor) -> Tensor:
    return grad.sum(tuple(range(grad.dim() - 1)))


class _OneDnnLinear(torch.autograd.Function):
    """The convolution with the backward of :func:`linear_gradients`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OS: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight_OS)
        return convolve_rows(x, weight_OS[:, :, None, None], bias_O)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight_OS = ctx.saved_tensors
        return _onednn_gradients(grad, x, weight_OS, ctx.needs_input_grad)
