"""What an interaction gives: the two streams after their exchange, and where they diverge, where it measures that."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from mdg.models.interaction.divergence import DivergenceMap


class InteractionOutput(NamedTuple):
    """``F̂_r``, ``F̂_t`` ``[B, H, W, C]``, and where the modalities diverge; None for what measures no divergence."""

    rgb_BHWC: Tensor
    thermal_BHWC: Tensor
    divergence: DivergenceMap | None = None
