"""The parts of a frame, and for a frame that cannot be read the mistakes in each of its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mdg.data.base import Frame, RGBTDataset
from mdg.data.datasets.file_dataset import PARTS, FileDataset
from mdg.data.reading.images import read_rgb
from mdg.data.reading.thermal import read_thermal
from mdg.errors import DataError

Parts = dict[str, np.ndarray]
Mistakes = list[tuple[str, str]]  # kind of finding, message


def read_parts(dataset: RGBTDataset, index: int, files: Mapping[str, Path | None]) -> tuple[Parts, Mistakes]:
    """Reads frame ``index`` as training does.

    Args:
        dataset: A split.
        index: Place of the frame.
        files: File of every part, None where it is missing (which is no mistake here: missing files are known
            before any is read); empty where frames are generated.

    Returns:
        "rgb" [H, W, 3], "thermal" [H, W] and "label" [H, W], uint8, and no mistake. Where the frame cannot be read: the
        parts that can, before any alignment, and a mistake for each that cannot.
    """
    mistakes: Mistakes = []
    if not files or all(files.values()):
        frame = _attempt(lambda: dataset.read(index), "frame", dataset.names[index], mistakes)
        if frame is not None:
            return _check_format(frame)
    if not files:
        return {}, mistakes
    assert isinstance(dataset, FileDataset)
    parts, single = _read_singly(dataset, files)
    return parts, single or mistakes


def _read_singly(dataset: FileDataset, files: Mapping[str, Path | None]) -> tuple[Parts, Mistakes]:
    mistakes: Mistakes = []
    found: dict[str, np.ndarray | None] = {}
    rgb, thermal, label = (files[part] for part in PARTS)
    if rgb is not None and rgb == thermal:
        both = _attempt(lambda: dataset.read_images({"rgb": rgb, "thermal": rgb}), "rgb", rgb, mistakes)
        found["rgb"], found["thermal"] = both or (None, None)
    else:
        if rgb is not None:
            found["rgb"] = _attempt(lambda: read_rgb(rgb, dataset.grey_rgb), "rgb", rgb, mistakes)
        if thermal is not None:
            scaling = dataset.thermal_scaling
            found["thermal"] = _attempt(lambda: read_thermal(thermal, scaling), "thermal", thermal, mistakes)
    if label is not None:
        found["label"] = _attempt(lambda: dataset.read_label(label), "label", label, mistakes)
    return {part: image for part, image in found.items() if image is not None}, mistakes


def _attempt(read: Callable[[], Any], kind: str, place: str | Path, mistakes: Mistakes) -> Any:
    try:
        return read()
    except DataError as error:
        mistakes.append((kind, str(error)))
    except Exception as error:  # one odd file must not end the check of all the others
        mistakes.append((kind, f"{place}: reading it failed with {type(error).__name__}: {error}"))
    return None


def _check_format(frame: Frame) -> tuple[Parts, Mistakes]:
    """The parts of a frame of a data set that anyone may have written."""
    parts = {"rgb": frame.rgb_HW3, "thermal": frame.thermal_HW, "label": frame.label_HW}
    size = parts["label"].shape[:2]
    for part, image in parts.items():
        expected = size + ((3,) if part == "rgb" else ())
        if image.dtype != np.uint8 or image.shape != expected:
            shape = list(image.shape)
            return {}, [("frame", f"{frame.name}: {part} is {image.dtype} {shape}, expected uint8 {list(expected)}")]
    return parts, []
