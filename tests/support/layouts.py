"""Small data sets in the layouts of the real ones, written from generated scenes. Every writer gives back its root.

The classes of the scenes are dealt out anew (``PST900_IDS``, ``FMB_IDS``, ``CITYSCAPES_IDS``, ``CUSTOM_IDS``: id by
MFNet id), so labels are those of the data set in number and range. Raw thermal counts are ``7000 + 10 * grey``: the
scaling ``RAW_SCALING`` gives back the 8 bits of the scene exactly.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mdg.data.datasets import fmb
from mdg.data.shards.make import Size, make_shards
from mdg.data.synthetic import Scene, render_scene
from mdg.registry import DATASETS

SIZE = (48, 64)  # height, width in pixels
FIRST = {"train": 0, "val": 500, "test": 1000}  # scenes of a split that is a folder
RAW_SCALING = {"mode": "fixed", "range": [7000, 9550]}
PST900_IDS = np.array([0, 1, 2, 3, 4, 1, 2, 3, 4], np.uint8)
FMB_IDS = np.array([1, 9, 8, 12, 2, 3, 14, 5, 0], np.uint8)  # bicycle (13) occurs nowhere, as in the real test labels
CITYSCAPES_IDS = np.array([7, 26, 24, 33, 8, 20, 12, 5, 21], np.uint8)  # 5 is "dynamic", which does not count
CITYSCAPES_TRAIN_IDS = np.array([0, 13, 11, 18, 1, 7, 3, 255, 8], np.uint8)
CITIES = {"train": ("aachen", "bochum"), "val": ("frankfurt", "lindau")}
CUSTOM_IDS = np.array([0, 2, 1, 3, 0, 2, 0, 3, 0], np.uint8)
CUSTOM_CLASSES = ("background", "person", "vehicle", "small thing")
CUSTOM_PALETTE = ((10, 10, 10), (220, 20, 60), (0, 0, 142), (255, 170, 0))


def mfnet_name(scene: int) -> str:
    """MFNet's way to number frames; odd scenes are night."""
    return f"{scene:05d}{'N' if scene % 2 else 'D'}"


def raw_counts(thermal_HW: np.ndarray) -> np.ndarray:
    """8-bit grey as the 16-bit counts of a camera."""
    return 7000 + 10 * thermal_HW.astype(np.uint16)


def write_image(file: Path, image: np.ndarray) -> Path:
    """Writes [H, W] of any depth or [H, W, 3] in the order R, G, B; makes the folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), image if image.ndim == 2 else np.ascontiguousarray(image[..., ::-1])), file
    return file


def scenes_of(split: str, count: int, size: tuple[int, int] = SIZE) -> Iterator[tuple[int, Scene]]:
    """Number within the split, from 0, and scene; splits share no scene, but their numbers are alike."""
    for number in range(count):
        yield number, render_scene(0, FIRST[split] + number, *size)


def pst900_name(number: int) -> str:
    """A name as in PST900; train and test have the same ones here."""
    return f"0_bag21_rect_rgb_frame{number:010d}"


def write_pst900(root: Path, train: int = 6, test: int = 3, size: tuple[int, int] = SIZE) -> Path:
    """``{train,test}/{rgb,thermal,thermal_raw,depth,labels}/NAME.png``; ``thermal_raw`` and ``depth`` of 16 bits."""
    for split, count in (("train", train), ("test", test)):
        for number, scene in scenes_of(split, count, size):
            depth_HW = np.broadcast_to(np.arange(size[0], dtype=np.uint16)[:, None], size).copy()
            parts = {
                "rgb": scene.rgb,
                "thermal": scene.thermal,
                "thermal_raw": raw_counts(scene.thermal),
                "depth": depth_HW,
                "labels": PST900_IDS[scene.label],
            }
            for folder, image in parts.items():
                write_image(root / split / folder / f"{pst900_name(number)}.png", image)
    return root


def write_fmb(root: Path, train: int = 6, test: int = 3, size: tuple[int, int] = SIZE) -> Path:
    """``{train,test}/{Visible,Infrared,Label,color}/NAME.png``; infrared has three equal channels."""
    for split, count in (("train", train), ("test", test)):
        for number, scene in scenes_of(split, count, size):
            label_HW = FMB_IDS[scene.label]
            parts = {
                "Visible": scene.rgb,
                "Infrared": np.dstack([scene.thermal] * 3),
                "Label": label_HW,
                "color": fmb.PALETTE_K3[label_HW],
            }
            for folder, image in parts.items():
                write_image(root / split / folder / f"{number:05d}.png", image)
    return root


def cityscapes_name(split: str, number: int) -> str:
    """``CITY/NAME`` of a frame; two cities a split."""
    city = CITIES[split][number % 2]
    return f"{city}/{city}_{number:06d}_000019"


def write_cityscapes(
    root: Path,
    train: int = 6,
    val: int = 3,
    size: tuple[int, int] = (64, 128),
    forms: tuple[str, ...] = ("labelTrainIds", "labelIds"),
) -> Path:
    """``leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png`` and ``gtFine/SPLIT/CITY/NAME_gtFine_FORM.png``, with the other
    files that the real one has there."""
    for split, count in (("train", train), ("val", val)):
        for number, scene in scenes_of(split, count, size):
            name, ids_HW = cityscapes_name(split, number), CITYSCAPES_IDS[scene.label]
            write_image(root / "leftImg8bit" / split / f"{name}_leftImg8bit.png", scene.rgb)
            stem = root / "gtFine" / split / f"{name}_gtFine"
            labels = {"labelIds": ids_HW, "labelTrainIds": CITYSCAPES_TRAIN_IDS[scene.label]}
            for form in forms:
                write_image(Path(f"{stem}_{form}.png"), labels[form])
            write_image(Path(f"{stem}_instanceIds.png"), ids_HW.astype(np.uint16) * 1000)
            write_image(Path(f"{stem}_color.png"), scene.rgb)
            Path(f"{stem}_polygons.json").write_text("{}")
    return root


def write_cityscapes_list(file: Path, split: str, numbers: list[int], separator: str = " ") -> Path:
    """A list as of U2PL: the paths of image and label a line."""
    names = [cityscapes_name(split, number) for number in numbers]
    rows = [
        (f"leftImg8bit/{split}/{name}_leftImg8bit.png", f"gtFine/{split}/{name}_gtFine_labelTrainIds.png")
        for name in names
    ]
    file.write_text("".join(f"{separator.join(row)}\n" for row in rows))
    return file


def write_mfnet_splits(root: Path, train: int = 6, val: int = 3, test: int = 4) -> list[int]:
    """``train.txt val.txt test.txt`` over consecutive scenes, which it gives back."""
    root.mkdir(parents=True, exist_ok=True)
    bounds = np.cumsum([0, train, val, test]).tolist()
    for split, first, end in zip(("train", "val", "test"), bounds, bounds[1:], strict=False):
        (root / f"{split}.txt").write_text("".join(f"{mfnet_name(scene)}\n" for scene in range(first, end)))
    return list(range(bounds[-1]))


def write_mfnet_folders(
    root: Path,
    train: int = 6,
    val: int = 3,
    test: int = 4,
    size: tuple[int, int] = SIZE,
    folders: tuple[str, str, str] = ("rgb", "thermal", "labels"),
) -> Path:
    """MFNet with one folder per modality; ``folders`` names them."""
    for number in write_mfnet_splits(root, train, val, test):
        scene = render_scene(0, number, *size)
        for folder, image in zip(folders, (scene.rgb, scene.thermal, scene.label), strict=True):
            write_image(root / folder / f"{mfnet_name(number)}.png", image)
    return root


def write_mfnet_packed(root: Path, train: int = 6, val: int = 3, test: int = 4, size: tuple[int, int] = SIZE) -> Path:
    """MFNet as published: RGB and thermal in one PNG of four channels."""
    (root / "images").mkdir(parents=True)
    for number in write_mfnet_splits(root, train, val, test):
        scene, name = render_scene(0, number, *size), mfnet_name(number)
        bgrt_HW4 = np.dstack([scene.rgb[..., ::-1], scene.thermal])
        assert cv2.imwrite(str(root / "images" / f"{name}.png"), bgrt_HW4)
        write_image(root / "labels" / f"{name}.png", scene.label)
    return root


def write_custom(root: Path, train: int = 6, test: int = 3, size: tuple[int, int] = SIZE, rgb_scale: int = 1) -> Path:
    """A set of nobody's layout: ``color/SPLIT/cam/NAME.jpg``, 16-bit ``SPLIT/ir/cam/NAME_ir.tiff`` and colour-coded
    ``SPLIT/masks/cam/NAME.png``; RGB has ``rgb_scale`` times the height and width. Read by :func:`custom_options`.
    """
    for split, count in (("train", train), ("test", test)):
        for number, scene in scenes_of(split, count, size):
            name = f"cam{number % 2}/{number:03d}_{'night' if scene.night else 'day'}"
            rgb_HW3 = scene.rgb.repeat(rgb_scale, axis=0).repeat(rgb_scale, axis=1)
            write_image(root / "color" / split / f"{name}.jpg", rgb_HW3)
            write_image(root / split / "ir" / f"{name}_ir.tiff", raw_counts(scene.thermal))
            colours_HW3 = np.array(CUSTOM_PALETTE, np.uint8)[CUSTOM_IDS[scene.label]]
            write_image(root / split / "masks" / f"{name}.png", colours_HW3)
    return root


def write_shards(root: Path) -> Path:
    """Shards of two frames each, of generated scenes."""
    sizes = {"height": SIZE[0], "width": SIZE[1], "train_images": 4, "val_images": 1, "test_images": 1}
    make_shards(DATASETS.parse({"type": "Synthetic", **sizes}), root, Size(2, None))
    return root


def custom_options(root: Path, **changes: Any) -> dict[str, Any]:
    """The ``data:`` of a configuration that reads what :func:`write_custom` wrote."""
    return {
        "type": "Folder",
        "name": "Courtyard",
        "root": str(root),
        "rgb": "color/{split}/{name}.jpg",
        "thermal": "{split}/ir/{name}_ir.*",
        "label": "{split}/masks/{name}.png",
        "classes": list(CUSTOM_CLASSES),
        "palette": [list(colour) for colour in CUSTOM_PALETTE],
        "label_format": "colours",
        "thermal_scaling": RAW_SCALING,
        "conditions": {"day": "*_day", "night": "*_night"},
        "unlabeled": "background",
        "val_split": None,
        "holdout": 0.25,
        **changes,
    }
