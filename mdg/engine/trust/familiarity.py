"""Whether a pair is like those that trained the network: by its pixels, and by what the network makes of them.

Legend: B batch, H W image size, h w deepest map, C its width, J numbers of a group, N frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from mdg.engine.trust.state import FamiliarGroup

DARK, BRIGHT = 8, 247  # of 0..255: a camera that shows nothing, or nothing but white
QUANTILE = 0.99
LEAST_DEVIATION = 0.05  # of the median one: a number that never moved in training must not decide alone
FARTHEST = 50.0  # deviations; more says no more
PIXELS, FEATURES = "pixels", "features"


def describe_pixels(rgb_B3HW: Tensor, thermal_B1HW: Tensor, cameras: Sequence[str] = ("rgb", "thermal")) -> Tensor:
    """Per image ``[B, J]`` float64: means of the channels and, of the mean over them, the deviation, the shares of dark
    and of bright pixels, and the mean gradient; of every camera that is there.

    Args:
        rgb_B3HW, thermal_B1HW: uint8.
        cameras: Those that the network sees.
    """
    images = {"rgb": rgb_B3HW, "thermal": thermal_B1HW}
    parts = []
    for camera in cameras:
        image_BCHW = images[camera].double()
        grey_BHW = image_BCHW.mean(dim=1)
        steps = grey_BHW.diff(dim=1).abs().mean(dim=(1, 2)) + grey_BHW.diff(dim=2).abs().mean(dim=(1, 2))
        shares = [(part.double()).mean(dim=(1, 2)) for part in (grey_BHW < DARK, grey_BHW > BRIGHT)]
        deviation = grey_BHW.flatten(1).std(dim=1, correction=0)
        parts += [*image_BCHW.mean(dim=(2, 3)).unbind(1), deviation, *shares, torch.nan_to_num(steps)]
    return torch.stack(parts, dim=1)


@contextmanager
def deepest_maps(model: nn.Module) -> Iterator[list[Tensor]]:
    """The means ``[B, C]`` of the deepest map that every decoder of the network is given, in the first pass within."""
    found: list[Tensor] = []
    seen: set[nn.Module] = set()

    def keep(module: nn.Module, inputs: tuple) -> None:
        if module not in seen:
            seen.add(module)
            found.append(inputs[0][-1].detach().double().mean(dim=(1, 2)))

    decoders = [module for name, module in model.named_modules() if name.rpartition(".")[2] == "decoder"]
    hooks = [module.register_forward_pre_hook(keep) for module in decoders]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def fit_group(name: str, trained_NJ: np.ndarray, held_out_NJ: np.ndarray) -> FamiliarGroup:
    """Mean and deviation over training frames, and the limit over frames that did not train.

    Raises:
        ValueError: Fewer than two training frames, or no other ones.
    """
    if len(trained_NJ) < 2 or not len(held_out_NJ):
        raise ValueError(f"got {len(trained_NJ)} and {len(held_out_NJ)} frames, expected two and one at least")
    deviation_J = trained_NJ.std(axis=0)
    typical = float(np.median(deviation_J)) or float(deviation_J.max()) or 1.0
    deviation_J = np.maximum(deviation_J, LEAST_DEVIATION * typical)
    open_group = FamiliarGroup(
        name=name, mean=trained_NJ.mean(axis=0).tolist(), deviation=deviation_J.tolist(), limit=1.0
    )
    limit = float(np.quantile(distances(open_group, held_out_NJ), QUANTILE))
    return open_group.model_copy(update={"limit": max(limit, 1e-6)})


def distances(group: FamiliarGroup, numbers_NJ: np.ndarray) -> np.ndarray:
    """Distance of every frame from the training frames, ``[N]``: a root of a mean square, about 1 for one of them.

    Raises:
        ValueError: Another number of numbers.
    """
    if numbers_NJ.shape[1] != len(group.mean):
        raise ValueError(f"{group.name}: got {numbers_NJ.shape[1]} numbers of a frame, expected {len(group.mean)}")
    z_NJ = (numbers_NJ - np.array(group.mean)) / np.array(group.deviation)
    return np.sqrt((np.clip(z_NJ, -FARTHEST, FARTHEST) ** 2).mean(axis=1))


def unlikeness(groups: Sequence[FamiliarGroup], numbers: dict[str, np.ndarray]) -> np.ndarray:
    """The warning score ``[N]``: the largest distance over its limit among the groups that were measured; above 1 the
    pair is farther from the training than 99 of 100 frames of the split were."""
    shares = [distances(group, numbers[group.name]) / group.limit for group in groups if group.name in numbers]
    return np.max(shares, axis=0)
