"""How tensors reach the numba kernels, and why they cannot. Importing this module does not import numba, which takes a
second."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch
from torch import Tensor

from mdg.ops.dispatch import is_installed

OPERATORS = ("attention", "channel_scan", "neighborhood_attention")
LOG2_E = 1.4426950408889634  # the kernels take powers of two: exp(x) = exp2(LOG2_E x)


def why_not_float32(x: Tensor) -> str | None:
    """The tensor is not on a CPU or not float32, or numba cannot be used."""
    if x.device.type != "cpu":
        return f"it runs on a CPU and the input is on {x.device.type}"
    if x.dtype != torch.float32:
        return f"it computes in float32 and the input is {str(x.dtype).removeprefix('torch.')}"
    return why_not_numba()


def why_not_numba() -> str | None:
    """numba is missing, cannot be imported, or has no place for what it compiles."""
    return _failure() if is_installed("numba") else "numba is not installed"


# `assume_constant_result`: while torch.compile traces, this runs as it is instead of being traced.
@torch.compiler.assume_constant_result
def _failure() -> str | None:
    return _try_numba()


@functools.cache
def _try_numba() -> str | None:
    # Any error counts: numba built for another numpy or llvmlite may fail in ways other than ImportError.
    try:
        for operator in OPERATORS:
            importlib.import_module(f"mdg.ops.{operator}.numba_kernels")
        from mdg.ops.numba_jit import why_not_cached

        return why_not_cached()
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        return f"numba cannot be used here ({type(error).__name__}: {first})"


def flat(*tensors: Tensor) -> list[Any]:
    """Per tensor its memory as a flat array and the strides of all axes but the last, whose stride is 1."""
    arguments: list[Any] = []
    for x in tensors:
        x = x.detach()
        if x.stride(-1) != 1 or x.numel() == 0:
            x = x.contiguous()
        reach = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True)) + 1
        arguments += [x.as_strided((reach if x.numel() else 0,), (1,)).numpy(), x.stride()[:-1]]
    return arguments
