"""The precision that autocast asks for."""

from __future__ import annotations

import torch
from torch import Tensor


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype of autocast on the device of ``x``; None where autocast is off, or unknown to the device."""
    device = x.device.type
    # Devices such as "meta", on which models are counted, know no autocast and raise when asked about it.
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None
