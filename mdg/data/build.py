"""From options to a split that can be read: built by the registry, checked, its frames kept where that is asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch.utils.data import Dataset

from mdg.data.base import UNLABELLED, Frame, RGBTDataset
from mdg.data.cache import cache_frames
from mdg.errors import ConfigError
from mdg.registry import DATASETS


def build_dataset(options: Any, role: str) -> RGBTDataset:
    """Builds the split of a data set that plays ``role`` (``train``, ``val`` or ``test``).

    Args:
        options: What ``DATASETS.parse`` takes: typed options, a mapping with a ``type``, or a type name.

    Raises:
        ConfigError: Unknown type. DataError: no split in that role, or data that is missing or incomplete.
    """
    dataset = open_dataset(options, role)
    fill_cache(dataset, options)
    return dataset


def open_dataset(options: Any, role: str) -> RGBTDataset:
    """:func:`build_dataset` without decoding a frame, so that other mistakes can be found before that takes minutes."""
    dataset = DATASETS.create(options, role=role)
    dataset.require_complete()
    return dataset


class Pool(Dataset):
    """Images without labels of several data sets, one behind the other.

    Args:
        parts: Data sets in the role ``unlabelled``, with their options.
    """

    def __init__(self, parts: Sequence[tuple[RGBTDataset, Any]]):
        self.parts = list(parts)
        self._ends = list(accumulate(len(dataset) for dataset, _ in self.parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, place: int) -> Frame:
        part = bisect_right(self._ends, place)
        return self.parts[part][0][place - (self._ends[part - 1] if part else 0)]

    def epoch_order(self, generator: torch.Generator, rank: int, world_size: int) -> None:
        """Left to the loader."""


def open_unlabelled(data: Any, further: Sequence[Any]) -> Pool:
    """The frames of the train split whose labels do not count, and those of further data sets.

    Args:
        data: Options of the data set; with ``labelled`` it gives the others of its frames.
        further: Options of data sets of which the train split is taken.

    Raises:
        ConfigError: There are none.
    """
    named = [*([data] if data.labelled is not None else []), *further]
    parts = [(open_dataset(options, UNLABELLED), options) for options in named]
    parts = [part for part in parts if len(part[0])]
    if not parts:
        raise ConfigError(
            "train.method learns from images without labels, and there are none: set data.labelled={fraction: 1/8}, or "
            "name data sets under unlabelled:"
        )
    return Pool(parts)


def fill_cache(dataset: RGBTDataset, options: Any) -> None:
    """Decodes the frames of a data set once, where its options ask for that; raises DataError where one cannot be used.

    Args:
        dataset: From :func:`open_dataset`.
        options: Those it was opened with.
    """
    if dataset.cache != "none":
        plain = DATASETS.parse(options).model_dump(mode="json")
        dataset.keep(cache_frames(dataset, dataset.cache, dataset.cache_dir, plain))
