"""Options of the encoders."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field, field_validator

from mdg.fields import Channels
from mdg.registry import Options

Variant = Literal["b0", "b1", "b2", "b3", "b4", "b5"]


class MixTransformerOptions(Options):
    """A MiT encoder."""

    variant: Variant = "b2"
    """Widths and depths: b0 is the smallest, b5 the deepest."""
    drop_path_rate: float = Field(0.1, ge=0, lt=1)
    """Stochastic depth of the last block; it rises linearly from 0 over the blocks."""


class PoolingEncoderOptions(Options):
    """The encoder of the second modality in CMNeXt."""

    variant: Variant = "b2"
    """Widths and depths, as of MiT."""
    drop_path_rate: float = Field(0.1, ge=0, lt=1)
    """Stochastic depth of the last block; it rises linearly from 0 over the blocks."""


class TimmOptions(Options):
    """An encoder of timm."""

    name: str
    """As in `timm.list_models()`: `convnextv2_nano`, `resnet50`, `tf_efficientnet_lite0`."""
    drop_path_rate: float = Field(0.0, ge=0, lt=1)
    """Stochastic depth of the last block, where the network has it."""
    global_last_block: bool = False
    """For TinyViT: the last block of stage 4 attends over the whole map, without windows and without their bias, so
    that there is one matrix of attention to distil into."""


class PlainViTOptions(Options):
    """A plain vision transformer of timm with a neck that makes maps of four sizes."""

    name: str = "deit_base_distilled_patch16_384"
    """As in `timm.list_models()`; patches of 16 pixels."""
    blocks: tuple[Channels, Channels, Channels, Channels] = (3, 6, 9, 12)
    """Blocks, counted from 1, behind which the maps at 1/4, 1/8, 1/16 and 1/32 are taken; the rest is left out."""
    width: Channels = 448
    """Channels of the four maps."""
    drop_path_rate: float = Field(0.0, ge=0, lt=1)
    """Stochastic depth of the last block; it rises linearly from 0 over the blocks."""

    @field_validator("blocks")
    @classmethod
    def _check_order(cls, blocks: tuple[int, ...]) -> tuple[int, ...]:
        if any(first >= second for first, second in pairwise(blocks)):
            raise ValueError("expected four blocks in their order, such as [3, 6, 9, 12]")
        return blocks
