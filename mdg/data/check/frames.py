"""One frame: its files as they lie on disk, read as training reads them, measured, and every mistake in it named.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B, L the 256 grey levels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from mdg.data.base import Frame, RGBTDataset
from mdg.data.check.findings import NAMES, Finding, parts_of
from mdg.data.check.numbers import Digest, ValueCounts, count_levels, digest, is_constant
from mdg.data.datasets.file_dataset import PARTS, FileDataset
from mdg.data.reading.images import open_image, read_rgb
from mdg.data.reading.pairs import read_joint_raw
from mdg.data.reading.thermal import read_raw_thermal, read_thermal
from mdg.errors import DataError

Parts = dict[str, np.ndarray]
Mistakes = list[tuple[str, str]]  # kind of finding, message


class Stored(NamedTuple):
    """Size and channels of an image file."""

    height: int
    width: int
    channels: int


SAME_GREY = 1  # levels by which two programs may round the grey of a colour differently
Files = Mapping[str, Path | None]


@dataclass
class FrameReport:
    """What is known of one frame; what could not be read is None or absent.

    Attributes:
        name, identity, condition: As the data set gives them.
        files: Per part the file, None where it is missing; empty where frames are generated.
        readable: Whether training could use the frame.
        size: (H, W) of the frame as training sees it.
        stored: Size and channels of each file.
        levels: Counts of grey levels: "rgb" [3, 256], "thermal" [256], "label" [256] class ids; int64.
        digests: Of the pixels of "rgb", "thermal" and "label"; none of images of one value, which all look alike.
        thermal_dtype: Of the stored thermal values.
        values: Stored thermal values.
        findings: What is wrong with this frame alone.
    """

    name: str
    identity: str
    condition: str | None
    files: Files
    readable: bool = False
    size: tuple[int, int] | None = None
    stored: dict[str, Stored] = field(default_factory=dict)
    levels: dict[str, np.ndarray] = field(default_factory=dict)
    digests: dict[str, Digest] = field(default_factory=dict)
    thermal_dtype: str | None = None
    values: ValueCounts | None = None
    findings: list[Finding] = field(default_factory=list)


class Inspector:
    """Inspects the frames of a data set; safe to call from several threads where reading the data set is.

    Args:
        dataset: A split.
    """

    def __init__(self, dataset: RGBTDataset):
        self.dataset = dataset
        self.identities = dataset.identities()

    def __call__(self, index: int) -> FrameReport:
        """Inspects frame ``index``. Nothing that is wrong with the frame raises."""
        dataset = self.dataset
        files: Files = dataset.files[index] if isinstance(dataset, FileDataset) else {}
        report = FrameReport(dataset.names[index], self.identities[index], dataset.condition(index), files)
        parts, mistakes = read_parts(dataset, index, files)
        report.readable = len(parts) == len(parts_of(dataset)) and not mistakes
        if report.readable:
            report.size = parts["label"].shape[:2]
        for kind, message in mistakes:
            self._add(report, kind, message)
        self._measure(report, parts)
        self._judge(report, parts)
        if isinstance(dataset, FileDataset):
            self._look_at_files(report, dataset)
        return report

    def _add(self, report: FrameReport, kind: str, message: str) -> None:
        files = dict.fromkeys(str(file) for file in report.files.values() if file is not None)
        report.findings.append(Finding(kind, self.dataset.split, message, (report.name,), tuple(files)))

    def _measure(self, report: FrameReport, parts: Mapping[str, np.ndarray]) -> None:
        for part, image in parts.items():
            report.levels[part] = count_levels(image)
            if part == "label" or not is_constant(report.levels[part]):
                report.digests[part] = digest(image)

    def _judge(self, report: FrameReport, parts: Mapping[str, np.ndarray]) -> None:
        if "label" in parts:
            self._judge_label(report)
        constant = [part for part in ("rgb", "thermal") if part in parts and is_constant(report.levels[part])]
        for part in constant:
            shown = ", ".join(str(level) for level in parts[part].reshape(-1, 3 if part == "rgb" else 1)[0])
            what = f"{_place(report, part)}: {NAMES[part]} is {shown} at every pixel; a dead or covered sensor?"
            self._add(report, "constant", what)
        if not constant and _same_picture(parts):
            self._add(
                report, "copy", f"{_place(report, 'thermal')}: shows the grey of the RGB image, not a thermal image"
            )

    def _judge_label(self, report: FrameReport) -> None:
        levels_L, classes = report.levels["label"], len(self.dataset.classes)
        counted = levels_L.copy()
        ignored, counted[self.dataset.ignore_index] = counted[self.dataset.ignore_index], 0
        place = _place(report, "label")
        unknown = np.flatnonzero(counted[classes:]) + classes
        if len(unknown):
            self._add(report, "label", f"{place}: got class ids {unknown.tolist()}, expected 0..{classes - 1}")
        elif not counted.any():
            self._add(report, "empty", f"{place}: all {ignored} pixels are ignored; nothing can be learnt or scored")
        elif not counted[1:].any():
            self._add(report, "background", f"{place}: every pixel is {self.dataset.classes[0]} or ignored")

    @staticmethod
    def _look_at_files(report: FrameReport, dataset: FileDataset) -> None:
        formats = {part: stored_format(file) for part, file in report.files.items() if file is not None}
        report.stored = {part: stored for part, stored in formats.items() if stored is not None}
        if "thermal" not in dataset.cameras:
            return
        scaling = dataset.thermal_scaling
        if report.readable and scaling.mode == "none" and dataset.align == "refuse":
            # Then training sees the stored bytes, or their negative: no need to decode them again.
            levels_L = report.levels["thermal"]
            report.values = ValueCounts.of_levels(levels_L[::-1] if scaling.invert else levels_L)
            report.thermal_dtype = "uint8"
        elif (raw_HW := raw_thermal(report.files)) is not None:
            report.values, report.thermal_dtype = ValueCounts.of(raw_HW), str(raw_HW.dtype)


def _place(report: FrameReport, part: str) -> str:
    """The file of a part, or the frame where it is generated."""
    return str(report.files.get(part) or f"{report.name} ({part})")


def _same_picture(parts: Mapping[str, np.ndarray]) -> bool:
    if "rgb" not in parts or "thermal" not in parts or parts["rgb"].shape[:2] != parts["thermal"].shape:
        return False
    grey_HW = cv2.cvtColor(parts["rgb"], cv2.COLOR_RGB2GRAY)
    return cv2.norm(grey_HW, parts["thermal"], cv2.NORM_INF) <= SAME_GREY


def read_parts(dataset: RGBTDataset, index: int, files: Mapping[str, Path | None]) -> tuple[Parts, Mistakes]:
    """Reads frame ``index`` as training does.

    Args:
        dataset: A split.
        index: Place of the frame.
        files: File of every part, None where it is missing (which is no mistake here: missing files are known
            before any is read); empty where frames are generated.

    Returns:
        "rgb" [H, W, 3], "thermal" [H, W] (of a thermal camera) and "label" [H, W], uint8, and no mistake. Where the
        frame cannot be read: the parts that can, before any alignment, and a mistake for each that cannot.
    """
    mistakes: Mistakes = []
    if not files or all(files.values()):
        frame = _attempt(lambda: dataset.read(index), "frame", dataset.names[index], mistakes)
        if frame is not None:
            parts, wrong = _check_format(frame)
            return {part: image for part, image in parts.items() if part in parts_of(dataset)}, wrong
    if not files:
        return {}, mistakes
    assert isinstance(dataset, FileDataset)
    parts, single = _read_singly(dataset, files)
    return parts, single or mistakes


def _read_singly(dataset: FileDataset, files: Mapping[str, Path | None]) -> tuple[Parts, Mistakes]:
    mistakes: Mistakes = []
    found: dict[str, np.ndarray | None] = {}
    rgb, thermal, label = (files.get(part) for part in PARTS)
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


def stored_format(file: Path) -> Stored | None:
    """Size (as it is seen, after any turn) and channels by the header of the file; None where it cannot be read at all
    (reading it properly says why)."""
    try:
        _, header = open_image(file)
    except DataError:
        return None
    sides = header.height, header.width
    return Stored(*(sides if header.orientation < 5 else sides[::-1]), header.channels)


def raw_thermal(files: Mapping[str, Path | None]) -> np.ndarray | None:
    """[H, W] thermal values in the dtype of the file; None where they cannot be read.

    A file may be both RGB and thermal.
    """
    file = files["thermal"]
    if file is None:
        return None
    try:
        return read_raw_thermal(file) if file != files["rgb"] else read_joint_raw(file)[1]
    except DataError:
        return None
