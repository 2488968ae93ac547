"""Cityscapes: 5000 finely labelled street scenes by day, 1024x2048, RGB alone, nineteen classes.

Source: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016; ids, train ids and
colours from its table of labels. There is no thermal camera: thermal is black, and :attr:`Cityscapes.cameras` says so.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from mdg.data.base import UNLABELLED, Frame, palette
from mdg.data.datasets.file_dataset import FileDataset
from mdg.data.datasets.patterns import Matches, scan_pattern
from mdg.data.reading.files import Paths, nearest_path, unread
from mdg.data.reading.images import read_rgb
from mdg.data.reading.labels import IdLabels
from mdg.data.reading.names import clues, pick, read_lines, require_different, unite
from mdg.errors import DataError, nearest
from mdg.fields import IGNORED
from mdg.options.datasets import CityscapesOptions
from mdg.registry import DATASETS

CLASSES = (
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
)
PALETTE_K3 = palette(
    [
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (102, 102, 156),
        (190, 153, 153),
        (153, 153, 153),
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 80, 100),
        (0, 0, 230),
        (119, 11, 32),
    ]
)
IDS = 34  # 0 .. 33; the licence plate, -1, is in no label file
ID_OF_TRAIN_ID = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
TRAIN_ID_OF_ID = dict.fromkeys(range(IDS), IGNORED) | {k: train_id for train_id, k in enumerate(ID_OF_TRAIN_ID)}
IMAGE = "leftImg8bit/{split}/{name}_leftImg8bit.png"
LABEL = "gtFine/{split}/{name}_gtFine_"
ENDINGS = {"trainIds": "labelTrainIds.png", "labelIds": "labelIds.png"}  # the first that is there is read


class CityscapesLabels:
    """Reads a label file of train ids, or one of ids through the official table, by the end of its name."""

    def __init__(self) -> None:
        self._train_ids = IdLabels(len(CLASSES), ignored=(IGNORED,))
        self._ids = IdLabels(len(CLASSES), TRAIN_ID_OF_ID)

    def __call__(self, file: Path) -> np.ndarray:
        """[H, W] uint8 train ids, 255 ignored; raises DataError naming ids that are not expected."""
        return (self._ids if file.name.endswith(ENDINGS["labelIds"]) else self._train_ids)(file)


@DATASETS.register(CityscapesOptions)
class Cityscapes(FileDataset):
    """A split of Cityscapes: ``leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png`` with
    ``gtFine/SPLIT/CITY/NAME_gtFine_labelTrainIds.png`` or ``..._labelIds.png``. Names are ``CITY/NAME``.

    Args:
        options: Where it lies, which labels are read, and the list of a part of train.
        role: ``train``, ``val`` or ``test``.

    Raises:
        DataError: Missing root, folders or list; an empty split, a line of a list that is no pair, or names twice.
    """

    dataset_name = "Cityscapes"
    classes = CLASSES
    palette_K3 = PALETTE_K3
    published_frames = ({"train": 2975, "val": 500},)
    cameras = ("rgb",)

    def __init__(self, options: CityscapesOptions, *, role: str):
        super().__init__(options, role=role)
        if not self.root.is_dir():
            raise DataError(
                f"{self.root}: no such folder, so there is no Cityscapes here. docs/datasets.md says how to get it; "
                "then set --opts data.root=/path/to/it"
            )
        self.forms = tuple(ENDINGS) if options.labels == "auto" else (options.labels,)
        self.list_file = options.train_list if role in ("train", UNLABELLED) or self._held_out else None
        self.read_label = CityscapesLabels()
        if self.list_file is None:
            self._find_split()
        else:
            self._find_listed(self.list_file)

    def _find_split(self) -> None:
        images = scan_pattern(self.root, IMAGE, self.split_name)
        forms = self.forms if "label" in self.parts else ()
        labels = [scan_pattern(self.root, LABEL + ENDINGS[form], self.split_name) for form in reversed(forms)]
        # Of two forms of a label the one of train ids is taken.
        found = {"rgb": images.files, "label": {name: file for form in labels for name, file in form.files.items()}}
        names = unite(found.values())
        if not names:
            raise DataError(
                f"{self.root}: no image fits leftImg8bit/{self.split_name}/CITY/NAME_leftImg8bit.png; "
                "docs/datasets.md says how Cityscapes is laid out"
            )
        self.unread = unread(_others(images, *labels), names, f"{self.root}, split '{self.split_name}'")
        folders = {
            part: self.root / top / self.split_name for part, top in (("rgb", "leftImg8bit"), ("label", "gtFine"))
        }
        files = {part: pick(names, found[part]) for part in self.parts}
        self._list(names, folders, files, lambda part, lacking: clues(lacking, found[part], {}))

    def _find_listed(self, file: Path) -> None:
        rows = _read_pairs(file)
        names = {number: _name_of(image) for number, (image, _) in rows.items()}
        require_different(file, names)
        self.listed_in, paths = file, Paths(self.root)
        images = {names[number]: paths.find(image) for number, (image, _) in rows.items()}
        labels = {names[number]: self._label_file(paths, label) for number, (_, label) in rows.items()}
        wanted = {"rgb": images, "label": labels}
        places = {part: file.with_name(f"{file.name} (column {part})") for part in wanted}
        found = {part: {name: path for name, path in wanted[part].items() if path.is_file()} for part in wanted}

        def explain(part: str, lacking: list[str]) -> dict[str, str]:
            return {name: f"no {wanted[part][name]}.{nearest_path(wanted[part][name])}".rstrip(".") for name in lacking}

        self._list(names.values(), places, found, explain)

    def _label_file(self, paths: Paths, entry: str) -> Path:
        """The file of an entry, or the other form of it where that is what is there, or what is asked for."""
        stem = next((entry.removesuffix(ending) for ending in ENDINGS.values() if entry.endswith(ending)), None)
        if stem is None:
            return paths.find(entry)
        forms = [paths.find(stem + ENDINGS[form]) for form in self.forms]
        return next((path for path in forms if path.is_file()), forms[0])

    def listed_name(self, entry: str) -> str:
        """A line of a list of U2PL, image and label, or a name."""
        return _name_of(entry.split("\t" if "\t" in entry else None)[0].strip())

    def read(self, index: int) -> Frame:
        """Reads frame ``index``, black where thermal would be; raises DataError naming a file that is missing, damaged
        or of another size than its image."""
        files = self._present(index)
        rgb_HW3 = read_rgb(files["rgb"], self.grey_rgb)
        black_HW = np.zeros(rgb_HW3.shape[:2], np.uint8)
        label_HW = self.read_label(files["label"]) if "label" in files else black_HW.copy()
        if label_HW.shape != black_HW.shape:
            (height, width), (rgb_height, rgb_width) = label_HW.shape, black_HW.shape
            raise DataError(
                f"{files['label']} is {height}x{width} and {files['rgb']} is {rgb_height}x{rgb_width} (height x "
                "width); expected a label of the size of its image"
            )
        return Frame(rgb_HW3, black_HW, label_HW, self.names[index])

    @property
    def split_label(self) -> str:
        """With the name of the list, where one names the frames."""
        label = super().split_label
        return label if self.list_file is None else f"{label}, list {self.list_file.name}"

    def preparation(self) -> str:
        """Says that there is one camera."""
        return "RGB alone, no thermal camera"


def _others(*matches: Matches) -> dict[str, Path]:
    return {name: file for match in matches for name, file in match.others.items()}


def _read_pairs(file: Path) -> dict[int, tuple[str, str]]:
    """Paths of image and label by line, as the public lists of U2PL have them."""
    if not file.is_file():
        lists = [path.name for path in file.parent.glob("*.txt")] if file.parent.is_dir() else []
        raise DataError(f"{file}: no such list; data.train_list names it.{nearest(file.name, lists)}")
    rows: dict[int, tuple[str, str]] = {}
    for number, line in read_lines(file).items():
        row = [entry.strip() for entry in line.split("\t" if "\t" in line else None)]
        if len(row) != 2:
            raise DataError(
                f"{file}:{number}: got a line of {len(row)} entries ({line[:200]}), expected the paths of an image and "
                "of its label, below data.root; where a path holds blanks, put a tab between the two"
            )
        rows[number] = row[0], row[1]
    if not rows:
        raise DataError(f"{file}: the list is empty; expected the paths of an image and of its label a line")
    return rows


def _name_of(entry: str) -> str:
    """``CITY/NAME`` of the path of an image, which frames of folders are called, too."""
    path = PurePosixPath(entry.replace("\\", "/"))
    return (path.parent.name + "/" if path.parent.name else "") + path.stem.removesuffix("_leftImg8bit")
