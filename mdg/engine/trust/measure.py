"""Predicting pairs and telling them from those of the training, in one pass.

Legend: B batch, K classes, J numbers of a pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mdg.engine.inference import Inference
from mdg.engine.trust.familiarity import FEATURES, PIXELS, deepest_maps, describe_pixels
from mdg.models.segmentor import SegmentationOutput


class Measured(NamedTuple):
    """Scores as of :meth:`Inference.scores`, the output of one pass over the whole images, and by group the numbers
    ``[B, J]`` by which pairs are told from those of the training."""

    scores_BKHW: Tensor
    output: SegmentationOutput
    numbers: dict[str, np.ndarray]


def measured(
    inference: Inference, rgb_B3HW: Tensor, thermal_B1HW: Tensor, size: Sequence[int], names: Sequence[str] = ()
) -> Measured:
    """Predicts images; arguments and errors of :meth:`Inference.scores`.

    Features are those of the pass over the whole images; where passes are replayed as CUDA graphs there are none.
    """
    with deepest_maps(inference.model) as maps:
        scores_BKHW, output = inference.explained_scores(rgb_B3HW, thermal_B1HW, size, names)
    cameras = ("rgb", "thermal") if inference.options.cameras == "both" else (inference.options.cameras,)
    numbers = {PIXELS: describe_pixels(rgb_B3HW, thermal_B1HW, cameras).cpu().numpy()}
    if maps:
        numbers[FEATURES] = torch.cat(maps, dim=1).cpu().numpy()
    return Measured(scores_BKHW, output, numbers)
