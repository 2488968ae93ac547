"""Samples and the chain of transforms over them.

A sample is ``{"rgb": Image [3, H, W], "thermal": Image [1, H, W], "label": Mask [H, W]}``, torchvision tv_tensors of
uint8. A transform is a callable from sample to sample, registered in ``TRANSFORMS``. Geometry moves all three parts
alike (``geometry.py``); photometry changes one of the two images (``photometry.py``).

A transform draws random numbers from torch's default CPU generator and from nowhere else: it is seeded per sample, and
that is what makes augmentation independent of the number of loader processes.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torchvision import tv_tensors

from mdg.data.base import Frame
from mdg.errors import DataError
from mdg.registry import TRANSFORMS

Sample = dict[str, torch.Tensor]
Transform = Callable[[Sample], Sample]
PARTS = {"rgb": tv_tensors.Image, "thermal": tv_tensors.Image, "label": tv_tensors.Mask}


def to_sample(frame: Frame) -> Sample:
    """The frame as a sample; copies, so that nothing a transform does can reach the data set."""
    rgb_3HW = torch.tensor(frame.rgb_HW3).permute(2, 0, 1).contiguous()
    return {
        "rgb": tv_tensors.Image(rgb_3HW),
        "thermal": tv_tensors.Image(torch.tensor(frame.thermal_HW)[None]),
        "label": tv_tensors.Mask(torch.tensor(frame.label_HW)),
    }


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
