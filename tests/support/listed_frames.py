"""A data set without files, for tests of what reads data sets."""

from __future__ import annotations

from collections.abc import Callable

from mdg.data.base import Frame, RGBTDataset, palette
from mdg.options.files import DatasetOptions


class ListedFrames(RGBTDataset):
    """Frames made by a function of the index; module level, so that loader processes can be started any way."""

    dataset_name = "Listed"
    classes = ("a", "b")
    palette_K3 = palette([(0, 0, 0), (255, 255, 255)])

    def __init__(self, count: int, make: Callable[[int], Frame]):
        super().__init__(DatasetOptions(), role="train")
        self.names = [f"frame{index}" for index in range(count)]
        self.make = make
        self.reads: list[int] = []

    def read(self, index: int) -> Frame:
        self.reads.append(index)
        return self.make(index)
