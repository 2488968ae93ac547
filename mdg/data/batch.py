"""Batch: what the loaders deliver, and how samples become one.

Shape suffixes: B images, H, W height and width in pixels, 3 the channels R, G, B, 1 the channel of thermal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from mdg.errors import DataError, UserError


class Batch(NamedTuple):
    """uint8 throughout; the model normalises on its device.

    Attributes:
        rgb_B3HW: Channels in the order R, G, B.
        thermal_B1HW: Brighter is warmer.
        label_BHW: Class ids, 255 ignored. In evaluation of native size, whatever the size of the images.
        names: Names of the frames.
        indices: Their places in the data set.
    """

    rgb_B3HW: torch.Tensor
    thermal_B1HW: torch.Tensor
    label_BHW: torch.Tensor
    names: list[str]
    indices: list[int]


class Item(NamedTuple):
    """One element of a batch: [3, H, W], [1, H, W] and [H, W] uint8."""

    rgb_3HW: torch.Tensor
    thermal_1HW: torch.Tensor
    label_HW: torch.Tensor
    name: str
    index: int


def collate(items: Sequence[Item | UserError], advice: str) -> Batch | UserError:
    """Stacks items to a batch; an error among them, or sizes that differ, becomes the error that the loader raises.

    Args:
        items: What the data set gave for the indices of a batch.
        advice: What to do where sizes differ.
    """
    for item in items:
        if isinstance(item, UserError):
            return item
    for part in ("rgb_3HW", "label_HW"):
        sizes = {item.name: tuple(getattr(item, part).shape[-2:]) for item in items}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{name} is {height}x{width}" for name, (height, width) in sizes.items())
            return DataError(f"images of different sizes cannot form a batch ({listed}): {advice}")
    return _stack(items)


def collate_by_size(items: Sequence[Item | UserError]) -> list[Batch] | UserError:
    """Stacks items to one batch per size of image and label, or gives the first error among them.

    Padding to a common size would change what the network sees, and with it the scores. Batches come in the order in
    which their sizes appear, the items of each in the order given.
    """
    groups: dict[tuple[torch.Size, torch.Size], list[Item]] = {}
    for item in items:
        if isinstance(item, UserError):
            return item
        groups.setdefault((item.rgb_3HW.shape, item.label_HW.shape), []).append(item)
    return [_stack(group) for group in groups.values()]


def _stack(items: Sequence[Item]) -> Batch:
    rgb, thermal, label, names, indices = zip(*items, strict=True)
    return Batch(torch.stack(rgb), torch.stack(thermal), torch.stack(label), list(names), list(indices))
