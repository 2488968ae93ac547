"""Generated RGB-thermal scenes as a data set with the classes of MFNet: needs no files, fits any image size.

Rendering costs about as much as reading a PNG, so nothing is kept: memory does not grow with the number of images or
loader processes.
"""

from __future__ import annotations

from mdg.data.base import Frame, RGBTDataset, day_or_night
from mdg.data.datasets.mfnet import CLASSES, PALETTE_K3
from mdg.data.synthetic import render_scene
from mdg.options.datasets import RANGES, SyntheticOptions
from mdg.registry import DATASETS


@DATASETS.register(SyntheticOptions)
class Synthetic(RGBTDataset):
    """A split of generated scenes, half day and half night, named as MFNet names them (``00012D``, ``00013N``).

    Args:
        options: Size and number of the scenes.
        role: ``train``, ``val`` or ``test``.
    """

    dataset_name = "Synthetic"
    classes = CLASSES
    palette_K3 = PALETTE_K3

    def __init__(self, options: SyntheticOptions, *, role: str):
        super().__init__(options, role=role)
        counts = {"train": options.train_images, "val": options.val_images, "test": options.test_images}
        self.height, self.width, self.seed = options.height, options.width, options.seed
        first = RANGES[self.split_name][0]
        scenes = range(first, first + counts[self.split_name])
        self.names = self._share([f"{scene:05d}{'N' if scene % 2 else 'D'}" for scene in scenes])

    def read(self, index: int) -> Frame:
        """Renders frame ``index``; the same one every time."""
        scene = render_scene(self.seed, int(self.names[index][:5]), self.height, self.width)
        return Frame(scene.rgb, scene.thermal, scene.label, self.names[index])

    def identities(self) -> list[str]:
        """Names with seed and size: another world, or another size, is another frame."""
        return [f"{self.seed}/{self.height}x{self.width}/{name}" for name in self.names]

    def condition(self, index: int) -> str | None:
        """``"day"`` or ``"night"``; alternating."""
        return day_or_night(self.names[index])
