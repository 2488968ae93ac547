"""What the surroundings of an operation ask for: its precision, whether its activations are worth their memory, and
whether it becomes part of a graph for another runtime."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

_exporting = False


@contextmanager
def exporting() -> Iterator[None]:
    """Inside, in the whole process, operators are made of operations that every runtime knows: no kernel of our own, no
    FFT, no loop over steps. The numbers are the same up to rounding."""
    global _exporting
    before, _exporting = _exporting, True
    try:
        yield
    finally:
        _exporting = before


def is_exporting() -> bool:
    """Whether this is inside of :func:`exporting`."""
    return _exporting


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype of autocast on the device of ``x``; None where autocast is off, or unknown to the device."""
    device = x.device.type
    # Devices such as "meta", on which models are counted, know no autocast and raise when asked about it.
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None


def float32_island(x: Tensor) -> AbstractContextManager:
    """Turns autocast off for what must be computed in float32: step sizes of the scan, the FFT."""
    device = x.device.type
    if _exporting:  # without autocast, and a graph has no place for the region
        return nullcontext()
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def keeps_inputs_only(x: Tensor) -> bool:
    """Whether cheap parts keep their inputs only: in float32 training on a CPU, where arithmetic is cheap and memory is
    not. On a GPU it is the other way round, and a compiler decides by itself what it computes again."""
    on_cpu = x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return torch.is_grad_enabled() and on_cpu and not torch.compiler.is_compiling()
