"""How often classes occur in a split, and what follows for training: weights of the loss, chances of frames.

Legend: N frames, K classes.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mdg.data.base import RGBTDataset
from mdg.data.datasets.file_dataset import FileDataset
from mdg.errors import ConfigError

ENET_OFFSET = 1.02  # Paszke et al., 2016: keeps weights between 1 and 50


def count_classes(dataset: RGBTDataset) -> np.ndarray:
    """Labelled pixels of every class in every frame, int64 ``[N, K]``; only the label files are read, unless
    a rig says which of their pixels count.

    Raises:
        DataError: A label that is missing or cannot be used.
    """
    classes = len(dataset.classes)

    def count(index: int) -> np.ndarray:
        # Under a rig what is ignored depends on the images, too.
        with_rig = isinstance(dataset, FileDataset) and dataset.rig is not None
        if (
            not with_rig
            and isinstance(dataset, FileDataset)
            and (file := dataset.files[index].get("label")) is not None
        ):
            label_HW = dataset.read_label(file)
        else:
            label_HW = dataset.read(index).label_HW
        return np.bincount(label_HW.ravel(), minlength=256)[:classes]

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return np.array(list(pool.map(count, range(len(dataset)))), np.int64).reshape(len(dataset), classes)


def class_weights(pixels_NK: np.ndarray) -> np.ndarray:
    """One weight per class, float64 ``[K]``: ``1 / ln(1.02 + share of its pixels)`` (Paszke et al., ENet, 2016), scaled
    so that the mean weight of a pixel is one; a class without a pixel has weight 0.

    Raises:
        ConfigError: No pixel is labelled.
    """
    total_K = pixels_NK.sum(axis=0)
    if not total_K.any():
        raise ConfigError("loss.class_weights: auto: no pixel of the train split is labelled; set weights or null")
    share_K = total_K / total_K.sum()
    weight_K = np.where(total_K > 0, 1 / np.log(ENET_OFFSET + share_K), 0.0)
    return weight_K / (weight_K * share_K).sum()


def frame_chances(pixels_NK: np.ndarray, temperature: float, min_pixels: int) -> np.ndarray:
    """Chance of every frame to be drawn, float64 ``[N]`` with sum 1 (rare class sampling, Hoyer et al., DAFormer, CVPR
    2022): a class is drawn with a chance proportional to ``exp((1 - share of its pixels) / temperature)``, then one of
    the frames that hold it.

    Args:
        pixels_NK: Labelled pixels.
        temperature: The lower, the more rare classes are preferred.
        min_pixels: Fewest pixels for which a frame counts as holding a class.

    Raises:
        ConfigError: No frame holds so many pixels of any class.
    """
    holds_NK = pixels_NK >= min_pixels
    present_K = holds_NK.any(axis=0)
    if not present_K.any():
        raise ConfigError(
            f"pipeline.rare_class_sampling.min_pixels: got {min_pixels}; no frame of the train split has as many "
            "pixels of a class"
        )
    share_K = pixels_NK.sum(axis=0) / pixels_NK.sum()
    exponent_K = np.where(present_K, (1 - share_K) / temperature, -np.inf)
    chance_K = np.exp(exponent_K - exponent_K.max())
    chance_K /= chance_K.sum()
    return (holds_NK / np.maximum(holds_NK.sum(axis=0), 1) * chance_K).sum(axis=1)
