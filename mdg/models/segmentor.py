"""The whole network: two encoders, interaction and fusion after every stage, one decoder.

Legend: B batch, H W input size, K classes, s stage 1..4, C_s width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdg.errors import ConfigError
from mdg.models.absence import CAMERAS, Camera, StandIns, absent_camera, why_not_without
from mdg.models.backbones.layered import can_be_stepped
from mdg.models.backbones.mit import STAGES
from mdg.models.decoders.segformer import SegFormerDecoder
from mdg.models.interaction.divergence import DivergenceMap
from mdg.models.interaction.exchange import InteractionOutput
from mdg.models.layers import init_weights, to_bhwc
from mdg.models.recompute import run
from mdg.ops.resize import resize_bilinear
from mdg.options.models import NormalizationOptions, SegFormerDecoderOptions, SegmentorOptions
from mdg.registry import BACKBONES, DECODERS, FUSIONS, INTERACTIONS, MODELS

STRIDE = 32


class SegmentationOutput(NamedTuple):
    """Logits ``[B, K, H, W]`` at the input size; auxiliary logits (RGB, thermal) at a quarter of it, empty unless
    training; the divergence maps of the stages, empty where nothing measures them; per stream the four maps
    ``[B, h, w, C]`` of its encoder, before the streams interact at their stage, empty unless training."""

    logits: Tensor
    auxiliary: tuple[Tensor, ...] = ()
    divergence: tuple[DivergenceMap, ...] = ()
    maps: tuple[tuple[Tensor, ...], ...] = ()


class InputNormalization(nn.Module):
    """uint8, or floats on the 0..255 scale, to zero mean and unit variance, float32."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return ((image_BCHW.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def rgb_statistics(options: NormalizationOptions, encoder: nn.Module) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of R, G, B: as configured, else as of the encoder, else those of ImageNet."""
    mean, std = getattr(encoder, "statistics", IMAGENET)
    return options.rgb_mean or mean, options.rgb_std or std


@MODELS.register(SegmentorOptions, name="MDG")
class Segmentor(nn.Module):
    """RGB-Thermal segmentation network; docs/model.md explains every part.

    Args:
        options: The parts. ``pretrained`` is read by :func:`mdg.models.build_model`, so that a constructor never opens
            a file.
        num_classes: ``K``.
    """

    def __init__(self, options: SegmentorOptions, *, num_classes: int):
        super().__init__()
        self.num_classes, normalize = num_classes, options.normalize
        self.rgb_backbone = BACKBONES.create(options.rgb_backbone, in_channels=3)
        self.rgb_norm = InputNormalization(*rgb_statistics(normalize, self.rgb_backbone))
        self.thermal_norm = InputNormalization([normalize.thermal_mean], [normalize.thermal_std])
        self.thermal_backbone = BACKBONES.create(options.thermal_backbone, in_channels=1)
        for encoder in (self.rgb_backbone, self.thermal_backbone):
            if not can_be_stepped(encoder):
                raise ConfigError(
                    f"model: {encoder.name} gives all its maps at once, so nothing can be exchanged between its "
                    "stages; take another encoder here, or model.type=SingleStream (or LateFusion) for this one"
                )
        widths = self.rgb_backbone.widths
        if tuple(widths) != tuple(self.thermal_backbone.widths):
            raise ConfigError(
                f"model: the two backbones must have equal widths to exchange features; got {widths} for "
                f"rgb_backbone and {self.thermal_backbone.widths} for thermal_backbone (b1 .. b5 match "
                "one another, b0 only itself)"
            )
        if options.twin_start:
            start_alike(self.thermal_backbone, self.rgb_backbone)
        self.stand_ins = None if options.stand_ins is None else StandIns(options.stand_ins, widths)
        self.needed_cameras: tuple[Camera, ...] = CAMERAS if self.stand_ins is None else ()
        stages = list(zip(STAGES, widths, strict=True))
        self.interaction = None
        if options.interaction is not None:
            self.interaction = nn.ModuleList(
                INTERACTIONS.create(options.interaction, stage=s, width=c)
                if s in options.interaction_stages
                else Apart()
                for s, c in stages
            )
            self.interaction.apply(init_weights)
        self._needs_seen = any(getattr(part, "leaves_out_padding", False) for part in self.interaction or ())
        self.fusion = nn.ModuleList(FUSIONS.create(options.fusion, stage=s, width=c) for s, c in stages)
        self.fusion.apply(init_weights)
        self.decoder = DECODERS.create(options.decoder, widths=widths, num_classes=num_classes)
        self.auxiliary, self.auxiliary_before = None, options.auxiliary_thermal == "before"
        if options.auxiliary_heads:
            head = SegFormerDecoderOptions(embed_dim=options.auxiliary_embed_dim)
            self.auxiliary = nn.ModuleList(
                SegFormerDecoder(head, widths=widths, num_classes=num_classes) for _ in range(2)
            )

    def forward(self, rgb_B3HW: Tensor | None, thermal_B1HW: Tensor | None) -> SegmentationOutput:
        """Segments a batch.

        Args:
            rgb_B3HW: ``[B, 3, H, W]`` RGB, uint8 or float in 0..255; None where that camera is absent, for which the
                network must have ``stand_ins``.
            thermal_B1HW: ``[B, 1, H, W]``, the same range and the same size, or None. Any H and W: the input is padded
                inside to multiples of 32 and the logits are cropped.

        Raises:
            ValueError: Wrong number of channels, sizes that differ, or a camera that the network cannot do without.
        """
        check_inputs(rgb_B3HW, thermal_B1HW)
        self._check_absence(absent_camera(rgb_B3HW, thermal_B1HW))
        shown = [image for image in (rgb_B3HW, thermal_B1HW) if image is not None]
        size = shown[0].shape[-2:]
        rgb = None if rgb_B3HW is None else to_bhwc(pad_to_stride(self.rgb_norm(rgb_B3HW)))
        thermal = None if thermal_B1HW is None else to_bhwc(pad_to_stride(self.thermal_norm(thermal_B1HW)))
        padded = padded_size(size)
        seen = pad_to_stride(seen_pixels(*shown)) if self._needs_seen else None
        rgb_maps, thermal_maps, before, divergence = self._encode(rgb, thermal, seen)
        fused = [fuse(r, t) for fuse, r, t in zip(self.fusion, rgb_maps, thermal_maps, strict=True)]
        logits = resize_bilinear(self.decoder(fused), padded)[..., : size[0], : size[1]]
        auxiliary: tuple[Tensor, ...] = ()
        if self.training and self.auxiliary is not None:
            quarter = [math.ceil(side / 4) for side in size]
            auxiliary = tuple(
                head(maps)[..., : quarter[0], : quarter[1]]
                for head, maps in zip(
                    self.auxiliary, (rgb_maps, before[1] if self.auxiliary_before else thermal_maps), strict=True
                )
            )
        maps = (tuple(before[0]), tuple(before[1])) if self.training else ()
        return SegmentationOutput(logits, auxiliary, divergence, maps)

    def _check_absence(self, absent: Camera | None) -> None:
        if absent in self.needed_cameras:
            raise ValueError(why_not_without(self, absent))

    def _encode(
        self, rgb: Tensor | None, thermal: Tensor | None, seen_B1HW: Tensor | None
    ) -> tuple[list[Tensor], list[Tensor], tuple[list[Tensor], list[Tensor]], tuple[DivergenceMap, ...]]:
        """The maps of RGB and of thermal after the interaction, those of both before it, and the divergence."""
        rgb_maps, thermal_maps, divergence = [], [], []
        before: tuple[list[Tensor], list[Tensor]] = [], []
        first = rgb if rgb is not None else thermal
        assert first is not None
        lost = self.stand_ins.draw(len(first), first.device) if self.stand_ins is not None else {}
        absent = absent_camera(rgb, thermal)
        for index, stage in enumerate(STAGES):
            # The encoder of a camera that is absent does not run; at the next stage it is absent again.
            rgb = None if absent == "rgb" else self.rgb_backbone.forward_stage(stage, rgb)
            thermal = None if absent == "thermal" else self.thermal_backbone.forward_stage(stage, thermal)
            rgb, thermal = self._stand_in(index, rgb, thermal, lost)
            before[0].append(rgb)
            before[1].append(thermal)
            if self.interaction is not None:
                part, maps = self.interaction[index], [rgb, thermal]
                if seen_B1HW is not None and getattr(part, "leaves_out_padding", False):
                    maps.append(F.adaptive_max_pool2d(seen_B1HW, rgb.shape[1:3])[:, 0] > 0)
                rgb, thermal, where = run(part, *maps)
                divergence += [] if where is None else [where]
            rgb_maps.append(rgb)
            thermal_maps.append(thermal)
        return rgb_maps, thermal_maps, before, tuple(divergence)

    def _stand_in(
        self, index: int, rgb: Tensor | None, thermal: Tensor | None, lost: Mapping[Camera, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The maps of a stage with what stands in for a camera: in all images, or in those that ``lost`` it."""
        if self.stand_ins is None:
            assert rgb is not None and thermal is not None
            return rgb, thermal
        if rgb is None or thermal is None:
            present = rgb if rgb is not None else thermal
            assert present is not None
            absent = self.stand_ins.like("rgb" if rgb is None else "thermal", index, present)
            return (absent, present) if rgb is None else (present, absent)
        replace = self.stand_ins.replace
        return replace("rgb", index, rgb, lost.get("rgb")), replace("thermal", index, thermal, lost.get("thermal"))


class Apart(nn.Module):
    """A stage without an interaction."""

    def forward(self, rgb_BHWC: Tensor, thermal_BHWC: Tensor) -> InteractionOutput:
        return InteractionOutput(rgb_BHWC, thermal_BHWC)


@torch.no_grad()
def start_alike(encoder: nn.Module, other: nn.Module) -> None:
    """Gives an encoder the weights of another one where their shapes agree; a stem of one channel takes the sum over
    the channels of the other stem, as for weights from a file."""
    theirs = other.state_dict()
    for name, value in encoder.state_dict().items():
        source = theirs.get(name)
        if source is not None and source.dim() > 1 and value.shape[1] == 1 < source.shape[1]:
            source = source.sum(dim=1, keepdim=True)
        if source is not None and source.shape == value.shape:
            value.copy_(source)


def seen_pixels(*images_BCHW: Tensor) -> Tensor:
    """``[B, 1, H, W]`` float32: 0 where all images are black, as the transforms leave what no camera saw, else 1."""
    return torch.stack([(image != 0).any(1, keepdim=True) for image in images_BCHW]).any(0).float()


def padded_size(size: Sequence[int], stride: int = STRIDE) -> list[int]:
    """[height, width] of :func:`pad_to_stride`, whatever the image shows."""
    return [side + -side % stride for side in size]


def pad_to_stride(x_BCHW: Tensor, stride: int = STRIDE) -> Tensor:
    """Pads bottom and right to multiples of ``stride``, by reflection or, for a small image, by its edge."""
    height, width = x_BCHW.shape[-2:]
    bottom, right = -height % stride, -width % stride
    if not (bottom or right):
        return x_BCHW
    mode = "reflect" if bottom < height and right < width else "replicate"
    return F.pad(x_BCHW, (0, right, 0, bottom), mode=mode)


def check_inputs(rgb: Tensor | None, thermal: Tensor | None) -> None:
    """Raises ValueError unless these are RGB and thermal images of one size, of which one may be absent."""
    if rgb is None or thermal is None:
        for image, channels in ((rgb, 3), (thermal, 1)):
            if image is not None and (image.ndim != 4 or image.shape[1] != channels):
                raise ValueError(f"expected images [B, {channels}, H, W], got {tuple(image.shape)}")
        return
    if rgb.ndim != 4 or rgb.shape[1] != 3 or thermal.ndim != 4 or thermal.shape[1] != 1:
        raise ValueError(
            f"expected RGB [B, 3, H, W] and thermal [B, 1, H, W], got {tuple(rgb.shape)} and {tuple(thermal.shape)}"
        )
    if rgb.shape[0] != thermal.shape[0] or rgb.shape[2:] != thermal.shape[2:]:
        raise ValueError(
            f"RGB and thermal must be the same images at the same size, got {tuple(rgb.shape)} and "
            f"{tuple(thermal.shape)}; resize one of them first"
        )
