"""A data set whose frames are those of another one under a corruption."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdg.data.base import Frame, RGBTDataset
from mdg.data.corruptions.base import Corruption, Images
from mdg.data.reading.names import name_bytes
from mdg.metrics.scoring import ScoringRule


class Corrupted(RGBTDataset):
    """The frames of a split under one corruption at one severity.

    A frame depends on the seed, its name, the corruption and the severity alone, in whatever order and in however many
    processes frames are read. (``Frozen`` also depends on which frames are before it in the split; before the first one
    is the last.) Names, identities and labels are those of the split: scores are over the same frames. Frames come out
    of the split's cache where it has one, and are not kept themselves.

    Args:
        dataset: The split as it is.
        corruption: What happens to it.
        severity: 0 .. 5.
        seed: Of what is drawn.

    Raises:
        ConfigError: A severity outside 0 .. 5.
    """

    def __init__(self, dataset: RGBTDataset, corruption: Corruption, severity: float, seed: int = 0):
        corruption.strength(severity)  # refuses what is no severity
        self.clean, self.corruption, self.severity, self.seed = dataset, corruption, severity, seed
        self.dataset_name, self.classes, self.palette_K3 = dataset.dataset_name, dataset.classes, dataset.palette_K3
        self.split, self.split_name, self.limit = dataset.split, dataset.split_name, dataset.limit
        self.holdout, self.holdout_seed, self._held_out = dataset.holdout, dataset.holdout_seed, dataset._held_out
        self.cameras = dataset.cameras
        self.cache, self.cache_dir, self._kept = "none", dataset.cache_dir, None
        self.names = list(dataset.names)

    def read(self, index: int) -> Frame:
        """The frame ``index`` of the split, corrupted."""
        generator = generator_for(self.seed, self.names[index], self.corruption)
        images = self.corruption.corrupt(
            self._images(index), self.severity, generator, lambda age: self._images((index - age) % len(self))
        )
        return Frame(*images, self.names[index])

    def _images(self, index: int) -> Images:
        frame = self.clean[index]
        return Images(frame.rgb_HW3, frame.thermal_HW, frame.label_HW)

    def scene(self, name: str) -> str:
        return self.clean.scene(name)

    @property
    def split_label(self) -> str:
        return self.clean.split_label

    def condition(self, index: int) -> str | None:
        return self.clean.condition(index)

    @property
    def background(self) -> int | None:
        return self.clean.background

    def identities(self) -> list[str]:
        return self.clean.identities()

    def preparation(self) -> str:
        """That of the split, and what was done to it."""
        facts = f"{self.corruption.name} at severity {self.severity:g} of 5, seed {self.seed}"
        return f"{self.clean.preparation()}; corrupted: {facts}"

    def facts(self) -> dict[str, Any]:
        """Those of the split, its ``preparation`` with the corruption, and under ``corruption`` what that is."""
        corruption = {
            "type": type(self.corruption).__name__,
            "camera": self.corruption.camera,
            "severity": self.severity,
            "strength": self.corruption.strength(self.severity),
            "unit": self.corruption.unit,
            "seed": self.seed,
        }
        return {**self.clean.facts(), "preparation": self.preparation(), "corruption": corruption}

    def scoring_rules(self) -> tuple[ScoringRule, ...]:
        return self.clean.scoring_rules()

    def sources(self, index: int) -> list[Path]:
        return self.clean.sources(index)

    def require_complete(self) -> None:
        self.clean.require_complete()


def generator_for(seed: int, name: str, corruption: Corruption) -> np.random.Generator:
    """Random numbers of a frame: the same whatever was read before.

    They do not depend on the severity, so that a stronger one is the same accident, only worse. Of what belongs to the
    camera they do not depend on the frame either.
    """
    parts: Sequence[str] = (str(seed), corruption.name, "" if corruption.of_camera else name)
    digest = hashlib.sha256(name_bytes("\0".join(parts))).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))
