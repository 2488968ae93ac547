"""Looking for NaN and infinity among many tensors, in one pass and with one wait for the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


@torch.no_grad()
def first_non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds NaN or infinity; None where all are finite. Whole numbers always are.

    A sum is not finite where one of its terms is not, and it is the fastest thing to ask of a tensor. It may also
    overflow, so what it points at is looked at again number by number.
    """
    sums: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for value in tensors.values():
        total = _sum(value)
        if total is not None:
            sums.setdefault((total.device, total.dtype), []).append(total)
    if all(bool(torch.stack(found).isfinite().all()) for found in sums.values()):
        return None
    return next((name for name, value in tensors.items() if not _real(value).isfinite().all()), None)


def _sum(value: Tensor) -> Tensor | None:
    kind = value.dtype
    if kind == torch.float32:  # nearly all of them, and there are thousands
        return value.sum()
    if kind.is_floating_point or kind.is_complex:
        return _real(value).sum(dtype=None if kind in (torch.float64, torch.complex128) else torch.float32)
    return None


def _real(value: Tensor) -> Tensor:
    """As real numbers that operators know: complex ones in pairs, those of eight bits in 32."""
    if value.is_complex():
        return torch.view_as_real(value)
    return value.float() if value.dtype.is_floating_point and value.element_size() == 1 else value
