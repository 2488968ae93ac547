"""A network with all that a run has to remember: weights, BatchNorm statistics, dropout. A pass takes a millisecond."""

from __future__ import annotations

import torch
from torch import nn

from mdg.fields import Channels
from mdg.models.segmentor import SegmentationOutput
from mdg.registry import MODELS, Options


class TinyOptions(Options):
    """Width of the hidden layer."""

    width: Channels = 8


@MODELS.register(TinyOptions)
class TinySegmentor(nn.Module):
    """Two convolutions."""

    def __init__(self, options: TinyOptions, *, num_classes: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(4, options.width, 3, padding=1),
            nn.BatchNorm2d(options.width),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Conv2d(options.width, num_classes, 3, padding=1),
        )

    def forward(self, rgb: torch.Tensor, thermal: torch.Tensor) -> SegmentationOutput:
        return SegmentationOutput(self.net(torch.cat([rgb, thermal], dim=1).float() / 255 - 0.5))
