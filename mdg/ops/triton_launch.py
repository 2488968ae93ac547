"""What the operators' Triton backends share: whether their kernels can run here, and whether they are interpreted."""

from __future__ import annotations

import os

from torch import Tensor

from mdg.ops.dispatch import constant_while_tracing, is_installed


@constant_while_tracing
def interpreted() -> bool:
    """Whether Triton interprets its kernels, on any device, to check them."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def no_triton(x: Tensor) -> str | None:
    """Triton is missing, or the tensor is not on CUDA."""
    if not is_installed("triton"):
        return "triton is not installed"
    if x.device.type != "cuda" and not interpreted():
        return f"it runs on CUDA and the input is on {x.device.type}"
    return None


def interpreted_only_by_name(*inputs: Tensor) -> str | None:
    """Interpreted kernels are for checking only."""
    return "Triton interprets its kernels (TRITON_INTERPRET=1)" if interpreted() else None
