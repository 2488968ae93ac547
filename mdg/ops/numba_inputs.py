"""How tensors reach the numba kernels. Importing this module does not import numba, which takes a second."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mdg.ops.dispatch import is_installed

LOG2_E = 1.4426950408889634  # the kernels take powers of two: exp(x) = exp2(LOG2_E x)


def why_not_float32(x: Tensor) -> str | None:
    """The tensor is not on a CPU or not float32, or numba is missing."""
    if x.device.type != "cpu":
        return f"it runs on a CPU and the input is on {x.device.type}"
    if x.dtype != torch.float32:
        return f"it computes in float32 and the input is {str(x.dtype).removeprefix('torch.')}"
    return why_not_installed()


def why_not_installed() -> str | None:
    """numba is missing."""
    return None if is_installed("numba") else "numba is not installed"


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
