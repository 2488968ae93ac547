"""Looking for NaN and infinity among many tensors, in one pass and with one wait for the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def first_non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds NaN or infinity; None where all are finite. Whole numbers always are.

    A sum is not finite where one of its terms is not, and it is the fastest thing to ask of a tensor. It may also
    overflow, so what it points at is looked at again number by number.
    """
    parts = {name: torch.view_as_real(value) if value.is_complex() else value for name, value in tensors.items()}
    floats = {name: value.detach() for name, value in parts.items() if value.is_floating_point() and value.numel()}
    sums: dict[torch.device, list[Tensor]] = {}
    for value in floats.values():
        sums.setdefault(value.device, []).append(_plain(value).sum(dtype=_accumulator(value)).float())
    if all(bool(torch.stack(found).isfinite().all()) for found in sums.values()):
        return None
    return next((name for name, value in floats.items() if not _plain(value).isfinite().all()), None)


def _plain(value: Tensor) -> Tensor:
    return value.float() if value.element_size() == 1 else value  # the eight-bit kinds know few operators


def _accumulator(value: Tensor) -> torch.dtype:
    return torch.float64 if value.dtype == torch.float64 else torch.float32
