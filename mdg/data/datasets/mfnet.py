"""MFNet: 1569 urban frames, 480x640, day and night, nine classes.

Source: Ha et al., "MFNet: Towards Real-Time Semantic Segmentation for Autonomous Vehicles with Multi-Spectral Scenes",
IROS 2017. Score: mean IoU over all nine classes, `unlabeled` included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from mdg.data.base import Frame, day_or_night, palette
from mdg.data.datasets.file_dataset import FileDataset
from mdg.data.reading.files import SUFFIXES_OF, clues_in, find_folders, list_folder, read_split
from mdg.data.reading.labels import IdLabels
from mdg.data.reading.names import pick, same
from mdg.errors import DataError
from mdg.metrics.scoring import ScoringRule
from mdg.options.datasets import MFNetOptions
from mdg.registry import DATASETS

CLASSES = ("unlabeled", "car", "person", "bike", "curve", "car_stop", "guardrail", "color_cone", "bump")
PALETTE_K3 = palette(
    [
        (0, 0, 0),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
        (0, 0, 192),
        (128, 128, 0),
        (64, 64, 128),
        (192, 128, 128),
        (192, 64, 0),
    ]
)
FLIP = "_flip"  # marks a name of a split whose frame is mirrored left to right
LAYOUTS = {
    "packed": {"rgb": ("images",), "thermal": ("images",), "label": ("labels", "label")},
    "folders": {"rgb": ("rgb",), "thermal": ("thermal",), "label": ("labels", "label")},
}


@DATASETS.register(MFNetOptions)
class MFNet(FileDataset):
    """A split of MFNet, in either of its layouts.

    A name that ends in ``_flip`` and has no file of its own is read from the frame it mirrors.

    Args:
        options: Where it lies and in which layout.
        role: ``train``, ``val`` or ``test``.

    Raises:
        DataError: Missing root, folders or split file; an empty split or duplicate names.
    """

    dataset_name = "MFNet"
    classes = CLASSES
    palette_K3 = PALETTE_K3
    published_frames = ({"train": 784, "val": 392, "test": 393},)

    def __init__(self, options: MFNetOptions, *, role: str):
        super().__init__(options, role=role)
        folders = _open_root(self.root, options.layout)
        self.listed_in = self.root / f"{self.split_name}.txt"
        names = read_split(self.root, self.split_name)
        found = {part: _find(names, list_folder(folder, SUFFIXES_OF[part])) for part, folder in folders.items()}
        self._list(names, folders, found, lambda part, lacking: clues_in(folders[part], lacking, SUFFIXES_OF[part]))
        self.read_label = IdLabels(len(CLASSES))

    def read(self, index: int) -> Frame:
        """Reads frame ``index``; raises DataError naming a file that is damaged or not in the format of MFNet."""
        frame, files = super().read(index), self.files[index]
        parts = {"rgb": frame.rgb_HW3, "thermal": frame.thermal_HW, "label": frame.label_HW}
        rgb_HW3, thermal_HW, label_HW = (_mirror(image, files.get(part), frame.name) for part, image in parts.items())
        return Frame(rgb_HW3, thermal_HW, label_HW, frame.name)

    def scene(self, name: str) -> str:
        """A mirrored frame shows the scene of its original."""
        return name.removesuffix(FLIP)

    def identities(self) -> list[str]:
        """Names without the mark of a mirror image, which shows the same scene."""
        return [name.removesuffix(FLIP) for name in self.names]

    def condition(self, index: int) -> str | None:
        """``"day"`` or ``"night"``, by the last letter of the name."""
        return day_or_night(self.names[index])

    def scoring_rules(self) -> tuple[ScoringRule, ...]:
        """All nine classes, as published, and the mean without `unlabeled`, whose IoU is near 98."""
        return ScoringRule("nine classes", CLASSES), ScoringRule("without unlabeled", CLASSES[1:])


def _open_root(root: Path, layout: str) -> dict[str, Path]:
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder, so there is no MFNet here. Get the data from the MFNet page by Ha et al. "
            '("MFNet: Towards Real-Time Semantic Segmentation for Autonomous Vehicles with Multi-Spectral Scenes", '
            "IROS 2017), unpack it and set --opts data.root=/path/to/it. `make demo` runs without it, on generated "
            "data"
        )
    for name in LAYOUTS if layout == "auto" else [layout]:
        folders = find_folders(root, LAYOUTS[name])
        if folders:
            return folders
    expected = "images/ and labels/" if layout == "packed" else "rgb/, thermal/ and labels/"
    expected = f"images/ and labels/, or {expected}" if layout == "auto" else expected
    found = ", ".join(sorted(f"{path.name}/" for path in root.iterdir() if path.is_dir())) or "no folders"
    raise DataError(
        f"{root}: not MFNet in the layout '{layout}'; found {found}, expected {expected}. Set "
        "data.root to the folder that holds them, or data.layout"
    )


def _find(names: Sequence[str], files: Mapping[str, Path]) -> dict[str, Path]:
    """Files by name; a mirror image without a file of its own is read from its original."""
    own = pick(names, files)
    originals = {name: name.removesuffix(FLIP) for name in names if name not in own and name.endswith(FLIP)}
    mirrored = pick(originals.values(), files)
    return own | {name: mirrored[original] for name, original in originals.items() if original in mirrored}


def _mirror(image: np.ndarray, file: Path | None, name: str) -> np.ndarray:
    # A file of its own (`00001D_flip.png`) is mirrored already.
    return cv2.flip(image, 1) if file is not None and same(file.stem) != same(name) else image
