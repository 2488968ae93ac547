"""Images for the methods that learn without labels."""

from __future__ import annotations

import torch

from mdg.engine.methods import Images


def half_labelled(size: int) -> Images:
    """Four images of ``size`` x ``size``, of which the first two have a label of nine classes."""
    rng = torch.Generator().manual_seed(1)
    rgb, thermal = (torch.randint(0, 256, (4, c, size, size), generator=rng, dtype=torch.uint8) for c in (3, 1))
    label = torch.randint(0, 9, (4, size, size), generator=rng)
    label[2:] = 0
    return Images(rgb, thermal, label, 2)
