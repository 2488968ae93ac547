"""What every RGB-thermal data set is: a list of names, a way to read one of them, and the facts of its protocol.

Shape suffixes: H, W are the height and width of an image in pixels, K the number of classes, 3 the channels R, G, B.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from torch.utils.data import Dataset

from mdg.errors import DataError
from mdg.registry import DATASETS, Options

ROLES = ("train", "val", "test")


class DatasetOptions(Options):
    """Which split plays which role; a role without a split is null."""

    train_split: str | None = "train"
    """Split to train on."""
    val_split: str | None = "val"
    """Split that selects the best checkpoint."""
    test_split: str | None = "test"
    """Split to report."""
    limit: int | None = Field(None, ge=1)
    """Use only the first N frames of every split, for quick and for overfitting checks; results say the count."""


@dataclass(frozen=True)
class Frame:
    """One aligned pair with its label.

    Attributes:
        rgb_HW3: uint8, channels in the order R, G, B.
        thermal_HW: uint8; brighter is warmer.
        label_HW: uint8 class ids; 255 is ignored.
        name: Name in the split.
    """

    rgb_HW3: np.ndarray
    thermal_HW: np.ndarray
    label_HW: np.ndarray
    name: str


class RGBTDataset(Dataset, ABC):
    """A split of an RGB-thermal data set. Subclasses set the class attributes, fill ``names`` and write ``read``.

    Args:
        role: ``train``, ``val`` or ``test``: what this split is used for.
        train_split, val_split, test_split: Name of the split in each role; None where there is none.
        limit: Number of leading frames to use; None uses all.

    Attributes:
        split: The role. ``split_name`` is the name of the split that plays it.
        names: Names of the frames, in the order of the split.

    Raises:
        DataError: The role has no split.
    """

    dataset_name: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]
    palette_K3: ClassVar[np.ndarray]  # uint8, R, G, B per class id
    ignore_index: ClassVar[int] = 255
    unlabeled_counted: ClassVar[bool] = True  # whether class 0 takes part in the mean IoU of the protocol

    def __init__(
        self,
        role: str,
        train_split: str | None = "train",
        val_split: str | None = "val",
        test_split: str | None = "test",
        limit: int | None = None,
    ):
        assert role in ROLES, role
        split_name = dict(zip(ROLES, (train_split, val_split, test_split), strict=True))[role]
        if split_name is None:
            raise DataError(
                f"data.{role}_split is null, so {self.dataset_name} has no {role} split here: name one "
                f"with --opts data.{role}_split=NAME, or run without it (training without validation: "
                "--opts eval.selection=last)"
            )
        self.split, self.limit = role, limit
        self.split_name: str = split_name
        self.names: list[str] = []

    @abstractmethod
    def read(self, index: int) -> Frame:
        """Reads frame ``index``; raises DataError naming the file where it cannot be used."""

    def condition(self, index: int) -> str | None:
        """``"day"`` or ``"night"`` where the data set tells, else None."""
        return None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Frame:
        return self.read(index)

    def fingerprint(self) -> str:
        """SHA-256 over the sorted names: equal for splits of the same frames, in whatever order."""
        return hashlib.sha256("\n".join(sorted(self.names)).encode()).hexdigest()

    def facts(self) -> dict[str, Any]:
        """What a score must say about its data: data set, role, split, number of files, hash, classes."""
        return {
            "dataset": self.dataset_name,
            "role": self.split,
            "split": self.split_name,
            "files": len(self),
            "sha256": self.fingerprint(),
            "classes": list(self.classes),
            "ignore_index": self.ignore_index,
            "unlabeled_counted": self.unlabeled_counted,
        }


def palette(colours: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """[K, 3] uint8 read-only array of R, G, B colours."""
    array_K3 = np.array(colours, dtype=np.uint8)
    array_K3.flags.writeable = False
    return array_K3


def day_or_night(name: str) -> str | None:
    """Condition by MFNet's naming: the name ends in D or N, before ``_flip`` where it has that."""
    return {"D": "day", "N": "night"}.get(name.removesuffix("_flip")[-1:])


def build_dataset(options: Any, role: str) -> RGBTDataset:
    """Builds the split of a data set that plays ``role`` (``train``, ``val`` or ``test``).

    Args:
        options: What ``DATASETS.parse`` takes: typed options, a mapping with a ``type``, or a type name.

    Raises:
        ConfigError: Unknown type. DataError: no split in that role, or data that is missing or incomplete.
    """
    return DATASETS.create(options, role=role)
