"""A GPU that is not there: tensors on "cuda" that have shapes and no numbers, on any machine.

Whatever would make a real GPU wait for the host shows here: reading a number of such a tensor is an error, and so is
an operator that touches two devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda", 0)


class HostSync(AssertionError):
    """An operator that makes a GPU wait for the host, or the host for the GPU."""


class _Watch(TorchDispatchMode):
    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.operators = device, 0

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = operator(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
        self.operators += any(x.device.type == self.device for x in tensors)
        # Numbers in tensors of one element on the host are arguments of kernels; all else would have to be copied.
        devices = {x.device.type for x in tensors if x.dim() > 0}
        if len(devices) > 1:
            raise HostSync(f"{operator} touches {' and '.join(sorted(devices))}")
        return out


@contextmanager
def fake_cuda() -> Iterator[FakeTensorMode]:
    """Inside, ``device="cuda"`` makes such tensors; a module gets there by ``to("meta")`` outside and ``to_empty``
    inside."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


@contextmanager
def no_host_sync(device: str = "cuda") -> Iterator[_Watch]:
    """Raises HostSync where tensors of ``device`` and others meet. Where a number is read, PyTorch raises: inside
    :func:`fake_cuda` DataDependentOutputException, on the device "meta" RuntimeError."""
    with _Watch(device) as watch:
        yield watch
