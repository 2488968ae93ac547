"""One split: the sum of its frames, and what only the whole split shows.

Shape suffixes: K classes, L the 256 grey levels, 3 the channels R, G, B.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mdg.data.base import RGBTDataset
from mdg.data.check.findings import Finding, parts_of
from mdg.data.check.frames import FrameReport, Stored
from mdg.data.check.numbers import LEVELS, Digest, ValueCounts, mean_and_std
from mdg.data.datasets.file_dataset import PARTS, FileDataset
from mdg.data.reading.pairs import ASPECT_TOLERANCE
from mdg.data.reading.thermal import count_quantiles
from mdg.errors import DataError

QUANTILES = 17  # of thermal images, to suggest: a share of 1/16 between two


@dataclass(frozen=True)
class FrameRecord:
    """What is kept of every frame, to compare splits and to choose samples.

    Attributes:
        name, identity: As the data set gives them.
        files: Files of RGB, thermal and label as far as there are any, each once.
        readable: Whether training could use the frame.
        digests: Per part, for parts that are not of one value.
        class_pixels_K: int64; zeros where the label could not be read.
    """

    name: str
    identity: str
    files: tuple[str, ...]
    readable: bool
    digests: dict[str, Digest]
    class_pixels_K: np.ndarray


class SplitReport:
    """Sums over the frames of a split; :meth:`add` takes them in order, :meth:`finish` judges the whole.

    Args:
        dataset: The split.

    Attributes:
        records: One per frame.
        readable, complete: Frames that training could use, and frames with all their files.
        conditions: Frames by condition ("day", "night", ...).
        stored: Per part, files by size and channels.
        sizes: Frames by (H, W) as training sees them.
        thermal_dtypes: Thermal files by their dtype.
        values: Stored thermal values.
        class_pixels_K, class_frames_K: int64, labelled pixels and frames in which each class occurs.
        ignored_pixels: Pixels that count nowhere.
        contents: Hash of the bytes of all files, which tells copies apart; None where one cannot be read, or where
            frames are generated. Known when the split is finished.
        findings: Everything that is wrong or strange in this split.
    """

    def __init__(self, dataset: RGBTDataset):
        classes = len(dataset.classes)
        self.dataset = dataset
        self.records: list[FrameRecord] = []
        self.readable = self.complete = 0
        self.conditions: Counter[str] = Counter()
        self.stored: dict[str, Counter[Stored]] = {part: Counter() for part in PARTS}
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.thermal_dtypes: Counter[str] = Counter()
        self.values = ValueCounts()
        self.rgb_levels_3L, self.thermal_levels_L = np.zeros((3, LEVELS), np.int64), np.zeros(LEVELS, np.int64)
        self._summed_quantiles = np.zeros(QUANTILES)
        self.class_pixels_K, self.class_frames_K = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
        self.ignored_pixels = 0
        self.contents: str | None = None
        self.findings: list[Finding] = _missing_files(dataset)
        self._size_groups: dict[tuple[Stored, ...], list[str]] = defaultdict(list)

    @property
    def role(self) -> str:
        """``train``, ``val`` or ``test``."""
        return self.dataset.split

    @property
    def has_files(self) -> bool:
        """False where frames are generated."""
        return isinstance(self.dataset, FileDataset)

    def add(self, frame: FrameReport) -> None:
        """Takes in the next frame."""
        self.complete += not frame.files or all(frame.files.values())
        self.readable += frame.readable
        self.conditions.update([frame.condition] if frame.condition else [])
        self.sizes.update([frame.size] if frame.size else [])
        self.thermal_dtypes.update([frame.thermal_dtype] if frame.thermal_dtype else [])
        for part, stored in frame.stored.items():
            self.stored[part][stored] += 1
        if len(frame.stored) == len(parts_of(self.dataset)):
            self._size_groups[tuple(frame.stored[part] for part in parts_of(self.dataset))].append(frame.name)
        if frame.values is not None:
            self.values.add(frame.values)
        self.findings.extend(frame.findings)
        self._add_levels(frame)

    def _add_levels(self, frame: FrameReport) -> None:
        pixels_K = np.zeros_like(self.class_pixels_K)
        if "label" in frame.levels:
            pixels_K += frame.levels["label"][: len(pixels_K)]
            self.class_pixels_K += pixels_K
            self.class_frames_K += pixels_K > 0
            self.ignored_pixels += int(frame.levels["label"][self.dataset.ignore_index])
        # Where images are resized or scaled, only a whole frame tells what the network would see.
        if frame.readable:
            self.rgb_levels_3L += frame.levels["rgb"]
            if "thermal" in self.dataset.cameras:
                self.thermal_levels_L += frame.levels["thermal"]
                self._summed_quantiles += count_quantiles(frame.levels["thermal"], QUANTILES)
        files = tuple(dict.fromkeys(str(file) for file in frame.files.values() if file is not None))
        record = FrameRecord(frame.name, frame.identity, files, frame.readable, frame.digests, pixels_K)
        self.records.append(record)

    def finish(self) -> None:
        """Adds what concerns the split as a whole."""
        if self.has_files:
            with suppress(DataError):  # of a file that is in the findings already
                self.contents = self.dataset.content_hash()
        if self.class_pixels_K.any() or self.ignored_pixels:
            self.findings += [
                Finding("absent", self.role, f"{name}: no pixel in {self.role}, so its IoU there will be NaN")
                for name, pixels in zip(self.dataset.classes, self.class_pixels_K, strict=True)
                if not pixels
            ]
        if self.ignored_pixels and not self.class_pixels_K[1:].any() and isinstance(self.dataset, FileDataset):
            doubt = self.dataset.find_doubt()
            kind = "label" if len(self.dataset.classes) == 2 else "background"  # training refuses, or warns
            self.findings += [Finding(kind, self.role, doubt)] if doubt else []
        if isinstance(self.dataset, FileDataset) and self.dataset.align in ("rgb", "thermal", "label"):
            self.findings += _differing_sizes(self.role, self._size_groups)
        if len(self.thermal_dtypes) > 1:
            shown = ", ".join(f"{count} of {dtype}" for dtype, count in sorted(self.thermal_dtypes.items()))
            self.findings.append(Finding("dtypes", self.role, f"thermal files of {self.role}: {shown}; one scale?"))

    def rgb_mean_std(self) -> list[tuple[float, float]]:
        """Mean and standard deviation of R, G and B over all pixels of readable frames, as fractions of 255."""
        return [mean_and_std(levels_L) for levels_L in self.rgb_levels_3L]

    def thermal_mean_std(self) -> tuple[float, float]:
        """The same of thermal, as training sees it; NaN without a thermal camera."""
        return mean_and_std(self.thermal_levels_L)

    def thermal_quantiles(self) -> list[float]:
        """[17] values for ``thermal_scaling.quantiles``: the mean over the frames, as training sees them, of the grey
        levels that 0, 1/16, ... 16/16 of the pixels do not exceed; empty without a thermal camera."""
        if not self.readable or "thermal" not in self.dataset.cameras:
            return []
        return [float(value) for value in self._summed_quantiles / self.readable]

    def class_shares(self) -> np.ndarray:
        """[K] fractions of the labelled pixels; NaN without any."""
        labelled = int(self.class_pixels_K.sum())
        return self.class_pixels_K / labelled if labelled else np.full(len(self.class_pixels_K), np.nan)


def _missing_files(dataset: RGBTDataset) -> list[Finding]:
    if isinstance(dataset, FileDataset):
        unread = [Finding("unread", dataset.split, dataset.unread)] if dataset.unread else []
        return unread + [
            Finding("missing", dataset.split, f"{folder}: no file for {name}{_clue(dataset, folder, name)}", (name,))
            for folder, names in dataset.missing.items()
            for name in names
        ]
    try:
        dataset.require_complete()
    except DataError as error:
        return [Finding("missing", dataset.split, str(error))]
    return []


def _clue(dataset: FileDataset, folder: Path, name: str) -> str:
    clue = dataset.clues.get((folder, name))
    return f"; {clue}" if clue else ""


def _differing_sizes(role: str, groups: dict[tuple[Stored, ...], list[str]]) -> list[Finding]:
    """One finding per combination of sizes that differ, with its frames."""
    findings = []
    for formats, names in sorted(groups.items()):
        if len({stored[:2] for stored in formats}) == 1:
            continue
        aspects = [stored.width / stored.height for stored in formats]
        stretched = max(aspects) / min(aspects) - 1 > ASPECT_TOLERANCE
        sizes = ", ".join(f"{part} {s.height}x{s.width}" for part, s in zip(PARTS, formats, strict=True))
        message = f"{len(names)} frame(s) of {role} (height x width): {sizes}; resized as data.align says"
        if stretched:
            message += ", which stretches one of them: do both cameras show the same view?"
        findings.append(Finding("aspect" if stretched else "sizes", role, message, tuple(names)))
    return findings
