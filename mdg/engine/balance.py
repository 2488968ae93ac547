"""Classes that are rare: what a run does about them, by the labels of its train split."""

from __future__ import annotations

import logging
from functools import cached_property

import numpy as np

from mdg.config.schema import RareClassSampling
from mdg.data import RGBTDataset
from mdg.data.class_pixels import class_weights, count_classes, frame_chances

logger = logging.getLogger("mdg.train")


class ClassBalance:
    """Weights of the loss and chances of frames; labels are read once, and only where one of them is asked for.

    Args:
        dataset: The train split.

    Attributes:
        weights: The weights that were asked for; None where none were.
    """

    def __init__(self, dataset: RGBTDataset):
        self.dataset = dataset
        self.weights: list[float] | None = None

    @cached_property
    def _pixels_NK(self) -> np.ndarray:
        return count_classes(self.dataset)

    def chances(self, sampling: RareClassSampling | None) -> np.ndarray | None:
        """Chance of every frame to be drawn; None where every frame is seen in every epoch."""
        if sampling is None:
            return None
        return frame_chances(self._pixels_NK, sampling.temperature, sampling.min_pixels)

    def find_weights(self) -> list[float]:
        """One weight per class, for ``class_weights: auto``; logged."""
        self.weights = class_weights(self._pixels_NK).tolist()
        named = zip(self.dataset.classes, self.weights, strict=True)
        logger.info("class weights by their pixels: %s", ", ".join(f"{name} {weight:.2f}" for name, weight in named))
        return self.weights
