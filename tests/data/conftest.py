"""Small data sets in the layouts of the real ones, written from generated scenes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from mdg.data.base import Frame, RGBTDataset, palette
from mdg.data.scenes import render_scene

SPLITS = {"train": range(6), "val": range(6, 9), "test": range(9, 13)}
SIZE = (48, 64)
MFNET_MINI = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "mfnet_mini"


def name_of(scene: int) -> str:
    return f"{scene:05d}{'N' if scene % 2 else 'D'}"


def write_packed(root: Path, name: str, rgb_HW3: np.ndarray, thermal_HW: np.ndarray, label_HW: np.ndarray) -> None:
    bgrt_HW4 = np.dstack([rgb_HW3[..., ::-1], thermal_HW])
    cv2.imwrite(str(root / "images" / f"{name}.png"), bgrt_HW4)
    cv2.imwrite(str(root / "labels" / f"{name}.png"), label_HW)


def write_splits(root: Path) -> None:
    for split, scenes in SPLITS.items():
        (root / f"{split}.txt").write_text("".join(f"{name_of(scene)}\n" for scene in scenes))


@pytest.fixture(scope="session")
def scenes() -> dict:
    return {name_of(scene): render_scene(0, scene, *SIZE) for split in SPLITS.values() for scene in split}


@pytest.fixture
def packed(tmp_path: Path, scenes: dict) -> Path:
    """MFNet as published: 4-channel PNGs."""
    root = tmp_path / "packed"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for name, scene in scenes.items():
        write_packed(root, name, scene.rgb, scene.thermal, scene.label)
    write_splits(root)
    return root


def write_folders(root: Path, scenes: dict, names: tuple[str, str, str]) -> Path:
    rgb, thermal, label = (root / name for name in names)
    for folder in (rgb, thermal, label):
        folder.mkdir(parents=True)
    for name, scene in scenes.items():
        cv2.imwrite(str(rgb / f"{name}.png"), scene.rgb[..., ::-1])
        cv2.imwrite(str(thermal / f"{name}.png"), scene.thermal)
        cv2.imwrite(str(label / f"{name}.png"), scene.label)
    write_splits(root)
    return root


@pytest.fixture
def folders(tmp_path: Path, scenes: dict) -> Path:
    """MFNet as copies of it come: one folder per modality."""
    return write_folders(tmp_path / "folders", scenes, ("rgb", "thermal", "labels"))


@pytest.fixture
def title_folders(tmp_path: Path, scenes: dict) -> Path:
    """The same under other names."""
    return write_folders(tmp_path / "title", scenes, ("RGB", "Thermal", "Label"))


@pytest.fixture
def mfnet_mini() -> Path:
    if not MFNET_MINI.is_dir():
        pytest.skip("the small set of real MFNet frames is not beside the repository")
    return MFNET_MINI


class ListedFrames(RGBTDataset):
    """Frames made by a function of the index; module level, so that loader processes can be started any way."""

    dataset_name = "Listed"
    classes = ("a", "b")
    palette_K3 = palette([(0, 0, 0), (255, 255, 255)])

    def __init__(self, count: int, make: Callable[[int], Frame]):
        super().__init__("train")
        self.names = [f"frame{index}" for index in range(count)]
        self.make = make
        self.reads: list[int] = []

    def read(self, index: int) -> Frame:
        self.reads.append(index)
        return self.make(index)


@pytest.fixture
def listed() -> type[ListedFrames]:
    return ListedFrames
