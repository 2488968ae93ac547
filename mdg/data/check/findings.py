"""What a check can find: kinds of problems and warnings, and one finding of a kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from mdg.data.base import RGBTDataset


class Kind(NamedTuple):
    """A heading, and whether what stands below it must be put right (a problem) or looked at (a warning)."""

    title: str
    problem: bool


KINDS: Mapping[str, Kind] = {
    "split": Kind("splits that cannot be opened", True),
    "missing": Kind("missing files", True),
    "rgb": Kind("RGB images that cannot be used", True),
    "thermal": Kind("thermal images that cannot be used", True),
    "label": Kind("labels that cannot be used", True),
    "frame": Kind("frames that cannot be put together", True),
    "empty": Kind("labels without a labelled pixel", True),
    "leak": Kind("frames that two splits share", True),
    "duplicate": Kind("frames that a split holds twice", False),
    "unread": Kind("images of kinds that are not read", False),
    "absent": Kind("classes that never occur", False),
    "background": Kind("labels with class 0 only", False),
    "constant": Kind("images of one value", False),
    "copy": Kind("RGB and thermal are one picture", False),
    "sizes": Kind("parts of different sizes", False),
    "aspect": Kind("parts of different proportions", False),
    "dtypes": Kind("thermal files of different types", False),
}


NAMES = {"rgb": "RGB", "thermal": "thermal", "label": "label"}  # of the parts of a frame


def parts_of(dataset: RGBTDataset) -> tuple[str, ...]:
    """The parts that frames of a data set have: an image of each camera, and the label."""
    return (*dataset.cameras, "label")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or strange.

    Attributes:
        kind: Key of :data:`KINDS`.
        split: Role of the split, or the two roles that share a frame: "train" or "train, test".
        message: What was found; one line.
        frames: Names of the frames concerned.
        files: Their files, where there are any.
    """

    kind: str
    split: str
    message: str
    frames: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def problem(self) -> bool:
        """Whether it must be put right."""
        return KINDS[self.kind].problem

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "kind": self.kind,
            "severity": "problem" if self.problem else "warning",
            "split": self.split,
            "message": self.message,
            "frames": list(self.frames),
            "files": list(self.files),
        }


def by_kind(findings: Iterable[Finding], problems: bool) -> dict[str, list[Finding]]:
    """The problems, or the warnings, by kind in the order of :data:`KINDS`."""
    groups: dict[str, list[Finding]] = {kind: [] for kind, (_, problem) in KINDS.items() if problem == problems}
    for finding in findings:
        if finding.problem == problems:
            groups[finding.kind].append(finding)
    return {kind: group for kind, group in groups.items() if group}
