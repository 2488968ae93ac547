"""MFNet: 1569 urban frames, 480x640, day and night, nine classes.

Source: Ha et al., "MFNet: Towards Real-Time Semantic Segmentation for Autonomous Vehicles with Multi-Spectral Scenes",
IROS 2017. Score: mean IoU over all nine classes, `unlabeled` included.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from mdg.data.base import DatasetOptions, Frame, RGBTDataset, day_or_night, palette
from mdg.data.files import IMAGE_SUFFIXES, check_complete, find_folders, list_folder, read_split
from mdg.data.images import check_class_ids, check_same_size, read_grey, read_rgb, read_rgb_thermal
from mdg.errors import DataError
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
    "packed": {"rgb": ("images",), "thermal": ("images",), "labels": ("labels", "label")},
    "folders": {"rgb": ("rgb",), "thermal": ("thermal",), "labels": ("labels", "label")},
}


class MFNetOptions(DatasetOptions):
    """Where MFNet lies. A split is a file of names: `train` is `train.txt`."""

    root: Path
    """Folder with `train.txt`, `val.txt`, `test.txt` and the folders of images."""
    layout: Literal["auto", "packed", "folders"] = "auto"
    """`packed`: 4-channel PNGs in `images/`; `folders`: `rgb/` and `thermal/`; `auto`: `packed` where it is."""


@DATASETS.register(MFNetOptions)
class MFNet(RGBTDataset):
    """A split of MFNet, in either of its layouts.

    A name that ends in ``_flip`` and has no file of its own is read from the frame it mirrors.

    Args:
        root: Folder of the data set.
        layout: ``packed``, ``folders`` or ``auto``.
        role: ``train``, ``val`` or ``test``.
        **common: The options of every data set, see :class:`RGBTDataset`.

    Raises:
        DataError: Missing root, folders or split file; an empty split or duplicate names; frames without all files.
    """

    dataset_name = "MFNet"
    classes = CLASSES
    palette_K3 = PALETTE_K3

    def __init__(self, root: str | Path, layout: str = "auto", *, role: str, **common: Any):
        super().__init__(role, **common)
        self.root = Path(root).expanduser()
        self._folders = _open_root(self.root, layout)
        self.names = self._share(read_split(self.root, self.split_name))
        listings = {
            key: list_folder(folder, (".png",) if key == "labels" else IMAGE_SUFFIXES)
            for key, folder in self._folders.items()
        }
        missing = {
            self._folders[key]: [name for name in self.names if _find(files, name) is None]
            for key, files in listings.items()
        }
        check_complete(self.root / f"{self.split_name}.txt", missing)
        self._files = [{key: _find(files, name) for key, files in listings.items()} for name in self.names]

    def read(self, index: int) -> Frame:
        """Reads frame ``index``; raises DataError naming a file that is damaged or not in the format of MFNet."""
        name, files = self.names[index], self._files[index]
        if files["rgb"] == files["thermal"]:
            rgb_HW3, thermal_HW = read_rgb_thermal(files["rgb"])
        else:
            rgb_HW3, thermal_HW = read_rgb(files["rgb"]), read_grey(files["thermal"], "thermal image")
        label_HW = read_grey(files["labels"], "label")
        check_same_size({files["rgb"]: rgb_HW3, files["thermal"]: thermal_HW, files["labels"]: label_HW})
        check_class_ids(files["labels"], label_HW, len(CLASSES))
        return Frame(
            _mirror(rgb_HW3, files["rgb"], name),
            _mirror(thermal_HW, files["thermal"], name),
            _mirror(label_HW, files["labels"], name),
            name,
        )

    def condition(self, index: int) -> str | None:
        """``"day"`` or ``"night"``, by the last letter of the name."""
        return day_or_night(self.names[index])


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


def _find(files: dict[str, Path], name: str) -> Path | None:
    return files.get(name) or (files.get(name.removesuffix(FLIP)) if name.endswith(FLIP) else None)


def _mirror(image: np.ndarray, file: Path, name: str) -> np.ndarray:
    # A file of its own (`00001D_flip.png`) is mirrored already.
    return np.ascontiguousarray(image[:, ::-1]) if file.stem != name else image
