"""Networks whose answer is known beforehand, and images for them, for tests of evaluation modes.

Legend: B batch, K classes, H W image, h w window.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from mdg.config.schema import EvalConfig
from mdg.engine.inference import Inference
from mdg.models.segmentor import SegmentationOutput
from mdg.ops.resize import resize_bilinear

SLIDE = {"mode": "slide", "window": [16, 20]}


class Pointwise(nn.Module):
    """Logits that depend on the pixel alone and are small integers, so that sums and means of equal ones are exact."""

    def forward(self, rgb: Tensor, thermal: Tensor) -> SegmentationOutput:
        value_B1HW = rgb.long().sum(1, keepdim=True) + 3 * thermal.long()
        return SegmentationOutput((value_B1HW * torch.tensor([1, 5, 7, 11]).view(1, 4, 1, 1) % 13).float())


class HeightIsClass(nn.Module):
    """Says how high the image was that it got: class 1 for 16 pixels, else class 0."""

    def forward(self, rgb: Tensor, thermal: Tensor) -> SegmentationOutput:
        logits_B2HW = torch.zeros(len(rgb), 2, *rgb.shape[-2:])
        logits_B2HW[:, int(rgb.shape[-2] == 16)] = 1
        return SegmentationOutput(logits_B2HW)


class Watched(nn.Module):
    """Notes the shapes it gets, and that the logits of the pass before are gone."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.shapes, self.last = model, [], lambda: None

    def forward(self, rgb: Tensor, thermal: Tensor) -> SegmentationOutput:
        assert self.last() is None, "scores of two passes are held at once"
        self.shapes.append(tuple(rgb.shape))
        output = self.model(rgb, thermal)
        self.last = weakref.ref(output.logits)
        return output


class Quarter(nn.Module):
    """Logits at a quarter of the input size."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, rgb: Tensor, thermal: Tensor) -> SegmentationOutput:
        return SegmentationOutput(self.model(rgb, thermal).logits[..., ::4, ::4])


class Tiny(nn.Module):
    """Two random convolutions of five classes. Unlike ``TinySegmentor`` it enters no registry, on which other tests
    look."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 3, padding=1))

    def forward(self, rgb: Tensor, thermal: Tensor) -> SegmentationOutput:
        return SegmentationOutput(self.net(torch.cat([rgb, thermal], dim=1).float() / 32 - 4))


def tiny() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Tiny().eval()


def images(B: int, H: int, W: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(0, 256, (B, C, H, W), dtype=torch.uint8, generator=generator) for C in (3, 1))


def make(model: nn.Module, precision: torch.dtype | None = None, **options) -> Inference:
    autocast = torch.autocast("cpu", dtype=precision, enabled=precision is not None)
    return Inference(model, EvalConfig(**options), autocast, torch.device("cpu"))


def slide_by_hand(model: Callable, rgb: Tensor, thermal: Tensor, window: list[int], stride: list[int]) -> np.ndarray:
    """Windows one at a time in float64, by the formula of mmsegmentation."""
    B, _, H, W = rgb.shape
    total, count = 0.0, np.zeros((H, W))
    for row in range(max(H - window[0] + stride[0] - 1, 0) // stride[0] + 1):
        for column in range(max(W - window[1] + stride[1] - 1, 0) // stride[1] + 1):
            bottom, right = min(row * stride[0] + window[0], H), min(column * stride[1] + window[1], W)
            top, left = max(bottom - window[0], 0), max(right - window[1], 0)
            with torch.no_grad():
                part = model(rgb[..., top:bottom, left:right], thermal[..., top:bottom, left:right]).logits
            part = resize_bilinear(part, (bottom - top, right - left)).double().numpy()
            padding = ((0, 0), (0, 0), (top, H - bottom), (left, W - right))
            total = total + np.pad(part, padding)
            count[top:bottom, left:right] += 1
    return total / count
