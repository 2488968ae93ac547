"""Networks without an exchange between streams: one encoder (RGB, thermal, or both in one image), and two networks
whose probabilities are averaged. They take and give what the network of two streams does.

Legend: B batch, H W input size, K classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mdg.models.absence import CAMERAS, Camera, absent_camera, why_not_without
from mdg.models.backbones.layered import can_be_stepped
from mdg.models.backbones.mit import STAGES
from mdg.models.layers import to_bhwc
from mdg.models.segmentor import (
    InputNormalization,
    SegmentationOutput,
    check_inputs,
    pad_to_stride,
    rgb_statistics,
)
from mdg.ops.resize import resize_bilinear
from mdg.options.models import LateFusionOptions, SingleStreamOptions
from mdg.registry import BACKBONES, DECODERS, MODELS

CHANNELS = {"rgb": 3, "thermal": 1, "both": 4}


@MODELS.register(SingleStreamOptions)
class SingleStream(nn.Module):
    """One encoder and a decoder, on RGB, on thermal, or on both as one image of four channels (early fusion).

    Args:
        options: The parts, and what the encoder sees.
        num_classes: ``K``.
    """

    def __init__(self, options: SingleStreamOptions, *, num_classes: int):
        super().__init__()
        self.num_classes, self.input, normalize = num_classes, options.input, options.normalize
        self.backbone = BACKBONES.create(options.backbone, in_channels=CHANNELS[self.input])
        statistics = {
            "rgb": list(zip(*rgb_statistics(normalize, self.backbone), strict=True)),
            "thermal": [(normalize.thermal_mean, normalize.thermal_std)],
        }
        self.needed_cameras: tuple[Camera, ...] = CAMERAS if self.input == "both" else (self.input,)
        mean, std = zip(*(pair for name in self.needed_cameras for pair in statistics[name]), strict=True)
        self.norm = InputNormalization(mean, std)
        self.decoder = DECODERS.create(options.decoder, widths=self.backbone.widths, num_classes=num_classes)

    def forward(self, rgb_B3HW: Tensor | None, thermal_B1HW: Tensor | None) -> SegmentationOutput:
        """Segments a batch; arguments and errors as of :meth:`mdg.models.segmentor.Segmentor.forward`. A camera that
        the network does not look at may be absent."""
        check_inputs(rgb_B3HW, thermal_B1HW)
        image = self._image(rgb_B3HW, thermal_B1HW)
        padded = pad_to_stride(self.norm(image))
        maps = self._maps(padded)
        height, width = image.shape[-2:]
        logits = resize_bilinear(self.decoder(maps), padded.shape[-2:])[..., :height, :width]
        return SegmentationOutput(logits, maps=(tuple(maps),) if self.training else ())

    def _maps(self, image_BCHW: Tensor) -> list[Tensor]:
        if not can_be_stepped(self.backbone):
            return self.backbone(image_BCHW)
        maps, x_BHWC = [], to_bhwc(image_BCHW)
        for stage in STAGES:
            x_BHWC = self.backbone.forward_stage(stage, x_BHWC)
            maps.append(x_BHWC)
        return maps

    def _image(self, rgb_B3HW: Tensor | None, thermal_B1HW: Tensor | None) -> Tensor:
        images = {"rgb": rgb_B3HW, "thermal": thermal_B1HW}
        shown = []
        for camera in self.needed_cameras:
            image = images[camera]
            if image is None:
                raise ValueError(why_not_without(self, camera))
            shown.append(image)
        return torch.cat(shown, dim=1) if len(shown) > 1 else shown[0]


@MODELS.register(LateFusionOptions)
class LateFusion(nn.Module):
    """Two networks, each of one modality, whose probabilities are averaged.

    ``logits`` are the logarithm of that mean, so that their softmax is the mean itself; ``auxiliary`` are, in training,
    the logits of the two networks, which ``auxiliary_loss`` teaches one by one.

    Args:
        options: The parts of both.
        num_classes: ``K``.
    """

    def __init__(self, options: LateFusionOptions, *, num_classes: int):
        super().__init__()
        self.num_classes = num_classes
        self.needed_cameras: tuple[Camera, ...] = ()
        self.rgb = SingleStream(options.stream("rgb"), num_classes=num_classes)
        self.thermal = SingleStream(options.stream("thermal"), num_classes=num_classes)

    def forward(self, rgb_B3HW: Tensor | None, thermal_B1HW: Tensor | None) -> SegmentationOutput:
        """Segments a batch; arguments and errors as of :meth:`mdg.models.segmentor.Segmentor.forward`. Where a camera
        is absent the network of the other one decides."""
        check_inputs(rgb_B3HW, thermal_B1HW)
        absent = absent_camera(rgb_B3HW, thermal_B1HW)
        networks = {"rgb": self.rgb, "thermal": self.thermal}
        logits = [network(rgb_B3HW, thermal_B1HW).logits for name, network in networks.items() if name != absent]
        each = torch.stack([one.float().log_softmax(dim=1) for one in logits])
        mean = each.logsumexp(dim=0) - math.log(len(logits))
        return SegmentationOutput(mean, tuple(logits) if self.training else ())
