"""Samples and the chain of transforms over them.

A sample is ``{"rgb": Image [3, H, W], "thermal": Image [1, H, W], "label": Mask [H, W]}``, torchvision tv_tensors of
uint8. A transform is a callable from sample to sample, registered in ``TRANSFORMS``. Geometry moves all three parts
alike (``geometry.py``); photometry changes one of the two images (``photometry.py``).

A transform draws random numbers from torch's default CPU generator and from nowhere else: it is seeded per sample, and
that is what makes augmentation independent of the number of loader processes. It never writes into the tensors it was
given. RGB may lie in memory in any order; a frame's lies pixel by pixel (channels last), which is what OpenCV works on
(``arrays.py``).

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors

from mdg.data.arrays import to_image
from mdg.data.base import Frame
from mdg.errors import DataError
from mdg.registry import TRANSFORMS

Sample = dict[str, torch.Tensor]
Transform = Callable[[Sample], Sample]
PARTS = {"rgb": tv_tensors.Image, "thermal": tv_tensors.Image, "label": tv_tensors.Mask}


def to_sample(frame: Frame) -> Sample:
    """The frame as a sample; copies, so that nothing a transform does can reach the data set."""
    return {
        "rgb": to_image(np.array(frame.rgb_HW3, order="C")),
        "thermal": to_image(np.array(frame.thermal_HW, order="C")),
        "label": tv_tensors.Mask(torch.from_numpy(np.array(frame.label_HW, order="C"))),
    }


def chance(p: float) -> bool:
    """True with probability ``p``."""
    return torch.rand(1).item() < p


def uniform(low: float, high: float) -> float:
    """A number drawn uniformly from ``low`` to ``high``."""
    return low + (high - low) * torch.rand(1, dtype=torch.float64).item()


def build_transforms(options: Sequence[Any]) -> list[Transform]:
    """Builds the transforms of ``pipeline.train``, to be applied in this order."""
    return [TRANSFORMS.create(item) for item in options]


def apply_transforms(sample: Sample, transforms: Sequence[Transform]) -> Sample:
    """Applies the chain.

    Raises:
        DataError: A transform returned something that is no sample. Arithmetic on a tv_tensor gives a plain tensor,
            which the geometry after it would silently leave where it was.
    """
    for transform in transforms:
        sample = transform(sample)
        for key, kind in PARTS.items():
            part = sample.get(key)
            if not isinstance(part, kind) or part.dtype != torch.uint8 or part.shape[-2:] != sample["rgb"].shape[-2:]:
                got = f"{type(part).__name__} {getattr(part, 'dtype', '')} {list(getattr(part, 'shape', ()))}"
                raise DataError(
                    f"transform {type(transform).__name__}: returned '{key}' as {got}; expected a "
                    f"tv_tensors.{kind.__name__} of uint8 with the height and width of the other parts: "
                    f"wrap results as tv_tensors.{kind.__name__}(...)"
                )
    return sample
