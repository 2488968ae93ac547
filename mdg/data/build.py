"""From options to a split that can be read: built by the registry, checked, its frames kept where that is asked for."""

from __future__ import annotations

from typing import Any

from mdg.data.base import RGBTDataset
from mdg.data.cache import cache_frames
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


def fill_cache(dataset: RGBTDataset, options: Any) -> None:
    """Decodes the frames of a data set once, where its options ask for that; raises DataError where one cannot be used.

    Args:
        dataset: From :func:`open_dataset`.
        options: Those it was opened with.
    """
    if dataset.cache != "none":
        plain = DATASETS.parse(options).model_dump(mode="json")
        dataset.keep(cache_frames(dataset, dataset.cache, dataset.cache_dir, plain))
