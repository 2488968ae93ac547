"""Bilinear resize of maps. Legend: B batch, C channels, H W map."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def resize_bilinear(x_BCHW: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resize with half-pixel centres (``align_corners=False``); the input itself where the size fits."""
    if tuple(x_BCHW.shape[-2:]) == tuple(size):
        return x_BCHW
    return F.interpolate(x_BCHW, size=tuple(size), mode="bilinear", align_corners=False)
