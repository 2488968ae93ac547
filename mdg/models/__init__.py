"""Models: built from options by registry, with pretrained encoders where the options name them."""

from __future__ import annotations

from typing import Any

from torch import nn

from mdg.models import backbones, decoders, interaction  # noqa: F401  (they register their components)
from mdg.models.segmentor import SegmentationOutput, Segmentor
from mdg.models.single_stream import LateFusion, SingleStream
from mdg.models.weights import load_encoder
from mdg.registry import MODELS

__all__ = ["LateFusion", "SegmentationOutput", "Segmentor", "SingleStream", "build_model"]


def build_model(options: Any, num_classes: int, *, load_pretrained: bool = True, key: str = "model") -> nn.Module:
    """Builds a network from its options (typed, a mapping, or a type name such as "MDG").

    Args:
        options: The ``model:`` part of a configuration.
        num_classes: Number of classes of the data set.
        load_pretrained: Read the encoder files that ``options.pretrained`` names; false where a checkpoint follows.
        key: Of the configuration that holds the options, for messages.

    Raises:
        WeightsError: An encoder file that is missing or does not fit. ConfigError: options that cannot be combined.
    """
    options = MODELS.parse(options)
    model = MODELS.create(options, num_classes=num_classes)
    files = options.encoder_files() if load_pretrained and hasattr(options, "encoder_files") else {}
    for name, file in files.items():
        if file is not None:
            stream = name.partition("_")[0].partition(".")[0]
            load_encoder(model.get_submodule(name), file, stream, key)
    return model
