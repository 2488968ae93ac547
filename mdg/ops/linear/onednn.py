"""Matrix products as oneDNN's convolutions, and when another library than PyTorch's is the better one.

Legend: S input width, O output width, M rows.
"""

from __future__ import annotations

import platform

import torch
import torch.nn.functional as F
from torch import Tensor

from mdg.ops.dispatch import constant_while_tracing
from mdg.ops.modes import is_exporting

X86 = ("x86_64", "AMD64")


def as_image(x: Tensor) -> Tensor:
    """Rows ``[..., S]`` as the height of one channels-last image ``[1, S, M, 1]``; no row moves."""
    return x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)


def as_rows(image_1OM1: Tensor, leading: torch.Size) -> Tensor:
    """The inverse of :func:`as_image`: ``[1, O, M, 1] -> [*leading, O]``."""
    return image_1OM1.permute(0, 2, 3, 1).reshape(*leading, image_1OM1.shape[1])


def convolve_rows(x: Tensor, kernel: Tensor, bias_O: Tensor | None = None, groups: int = 1) -> Tensor:
    """A 1x1 convolution with ``kernel`` ``[O, S/groups, 1, 1]`` of rows: ``[..., S] -> [..., O]``."""
    # In one thread PyTorch keeps 1x1 kernels from oneDNN, unless they are dilated, and runs them group by group (its
    # `use_mkldnn`), which takes three times as long. To a 1x1 kernel dilation is nothing. A graph for another
    # runtime is the same whatever the number of threads.
    grouped_on_cpu = groups > 1 and x.device.type == "cpu" and not is_exporting()
    dilation = 2 if grouped_on_cpu and _is_x86() and has_one_thread() else 1
    return as_rows(F.conv2d(as_image(x), kernel, bias_O, groups=groups, dilation=dilation), x.shape[:-1])


def why_not_float32(*tensors: Tensor) -> str | None:
    """The tensors are not float32 on a CPU, or PyTorch has no oneDNN."""
    if tensors[0].device.type != "cpu":
        return f"it runs on a CPU and the input is on {tensors[0].device.type}"
    if any(x.dtype != torch.float32 for x in tensors) or torch.is_autocast_enabled("cpu"):
        return "it computes in float32"
    if tensors[0].numel() == 0:
        return "it takes no empty input"
    return None if _has_onednn() else "PyTorch was built without oneDNN, or it is switched off"


def is_better(products: int, least: int) -> str | None:
    """Why another library is the better choice for so many products, or None."""
    if products < least:
        return "the product is small"
    return None if _is_x86() else "PyTorch's own matrix product is the better one on this processor"


@constant_while_tracing
def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and torch._C._get_mkldnn_enabled()


@constant_while_tracing
def has_one_thread() -> bool:
    """Whether PyTorch computes in one thread."""
    return torch.get_num_threads() == 1


@constant_while_tracing
def _is_x86() -> bool:
    return platform.machine() in X86
