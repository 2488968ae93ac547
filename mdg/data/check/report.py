"""The whole data set: its splits, what they share, and the numbers a configuration needs.

Frames that are the same are a waste within a split and a leak between two. Content is compared by digests of decoded
pixels, so a renamed or differently compressed copy is found; one that was resized, or compressed with loss, is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from mdg.data.base import RGBTDataset
from mdg.data.check.findings import NAMES, Finding
from mdg.data.check.splits import FrameRecord, SplitReport
from mdg.data.datasets.mfnet import FLIP

IMAGES = ("rgb", "thermal")
Key = tuple[str, object]  # what is compared, and its value


def find_leaks(
    role: str, records: Sequence[FrameRecord], other_role: str, others: Sequence[FrameRecord]
) -> list[Finding]:
    """Frames of one split that another holds too: by identity, by the content of RGB or of thermal, also mirrored."""
    known = _index(records, identities=True)
    findings = []
    for record in others:
        for place, reasons in _matches(known, record, mirrored=True):
            first = records[place]
            message = f"{role} {first.name} and {other_role} {record.name}: {', '.join(reasons)}{_where(first, record)}"
            findings.append(_finding("leak", f"{role}, {other_role}", message, first, record))
    return findings


def find_duplicates(role: str, records: Sequence[FrameRecord]) -> list[Finding]:
    """Frames with the content of an earlier frame of the split. Mirror images do not count: MFNet's ``_flip`` frames
    are meant to be there."""
    known = _index(records, identities=False)
    findings = []
    for place, record in enumerate(records):
        for earlier, reasons in _matches(known, record, mirrored=False):
            if earlier < place:
                first = records[earlier]
                message = f"{first.name} and {record.name}: {', '.join([*reasons, *_labels(first, record)])}"
                findings.append(_finding("duplicate", role, message + _where(first, record), first, record))
    return findings


def _index(records: Sequence[FrameRecord], identities: bool) -> dict[Key, int]:
    # Only the first frame of equal ones is listed: a thousand copies are a thousand findings, not a million.
    known: dict[Key, int] = {}
    for place, record in enumerate(records):
        keys: list[Key] = [(part, record.digests[part].straight) for part in IMAGES if part in record.digests]
        for key in [*keys, *([("name", record.identity)] if identities else [])]:
            known.setdefault(key, place)
    return known


def _matches(known: dict[Key, int], record: FrameRecord, mirrored: bool) -> Iterator[tuple[int, list[str]]]:
    reasons: dict[int, list[str]] = {}
    keys: list[tuple[str, Key]] = [("same scene by name", ("name", record.identity))]
    for part in [part for part in IMAGES if part in record.digests]:
        digest = record.digests[part]
        keys.append((f"same {NAMES[part]}", (part, digest.straight)))
        if mirrored and digest.mirrored != digest.straight:
            keys.append((f"same {NAMES[part]}, mirrored", (part, digest.mirrored)))
    for reason, key in keys:
        if key in known:
            reasons.setdefault(known[key], []).append(reason)
    yield from sorted(reasons.items())


def _labels(first: FrameRecord, second: FrameRecord) -> list[str]:
    digests = [record.digests.get("label") for record in (first, second)]
    if None in digests:
        return []
    return ["same label" if digests[0] == digests[1] else "but different labels"]


def _where(first: FrameRecord, second: FrameRecord) -> str:
    files = [record.files[0] for record in (first, second) if record.files]
    return f" ({' and '.join(dict.fromkeys(files))})" if files else ""


def _finding(kind: str, split: str, message: str, first: FrameRecord, second: FrameRecord) -> Finding:
    files = tuple(dict.fromkeys([*first.files, *second.files]))
    return Finding(kind, split, message, (first.name, second.name), files)


@dataclass
class DataReport:
    """What a check found.

    Attributes:
        name: Data set, as results name it.
        config: The configuration it was opened with.
        root: Folder of the data set; None where frames are generated.
        splits: By role, in the order train, val, test; those that could be opened.
        notes: What is worth knowing and no mistake.
        findings: Everything that is wrong or strange.
    """

    name: str
    config: str = ""
    root: str | None = None
    splits: dict[str, SplitReport] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def finish(self) -> None:
        """Judges the splits and compares them; call once, when all frames have been added."""
        for split in self.splits.values():
            split.finish()
            self.findings += split.findings
            self.findings += find_duplicates(split.role, split.records)
        for one, other in combinations(self.splits.values(), 2):
            self.findings += find_leaks(one.role, one.records, other.role, other.records)
        if any("thermal" not in split.dataset.cameras for split in self.splits.values()):
            self.notes.append(
                f"{self.name} has no thermal camera: nothing is said of thermal, and networks see RGB alone"
            )
        self.notes += published_notes([split.dataset for split in self.splits.values()])

    def count(self, problems: bool) -> int:
        """Number of problems, or of warnings."""
        return sum(finding.problem == problems for finding in self.findings)

    @property
    def reference(self) -> SplitReport | None:
        """The split whose statistics a configuration should use: train, or the first that could be read."""
        return next((split for split in self.splits.values() if split.records), None)

    def normalize(self) -> dict[str, Any] | None:
        """Values for ``model.normalize``, of the reference split; None where none of its frames could be read."""
        split = self.reference
        if split is None or not split.readable:
            return None
        means, stds = zip(*split.rgb_mean_std(), strict=True)
        rgb = {"rgb_mean": list(means), "rgb_std": list(stds)}
        if "thermal" not in split.dataset.cameras:
            return rgb
        thermal_mean, thermal_std = split.thermal_mean_std()
        return {**rgb, "thermal_mean": thermal_mean, "thermal_std": thermal_std}

    def thermal_range(self) -> tuple[float, float] | None:
        """Values for ``data.thermal_scaling.range``; None where thermal files hold 8 bits."""
        split = self.reference
        if split is None or set(split.thermal_dtypes) <= {"uint8"}:
            return None
        return split.values.suggested_range()

    def yaml_lines(self) -> list[str]:
        """What can be pasted into a configuration; nothing where nothing is known."""
        split = self.reference
        if split is None:
            return []
        lines: list[str] = []
        limits = self.thermal_range()
        if limits is not None:
            low, high = (_short(value) for value in limits)
            lines += [
                f"# 0.1 and 99.9 % of the thermal values of {split.role}: what lies outside is clipped",
                "data:",
                f"  thermal_scaling: {{mode: fixed, range: [{low}, {high}]}}",
            ]
        normalize = self.normalize()
        if normalize is not None:
            lines += [
                f"# all pixels of {split.readable} frames of {split.role}; pretrained RGB encoders want ImageNet's RGB "
                "values instead",
                "model:",
                "  normalize:",
                *(f"    {key}: {_yaml(value)}" for key, value in normalize.items()),
            ]
        if quantiles := split.thermal_quantiles():
            lines += [
                "# for frames of another thermal camera, whose grey values are to be distributed like these:",
                f"# thermal_scaling: {{mode: match, quantiles: [{', '.join(f'{value:.0f}' for value in quantiles)}]}}",
            ]
        return lines


def _yaml(value: Any) -> str:
    return f"[{', '.join(map(_yaml, value))}]" if isinstance(value, list) else f"{value:.4f}"


def _short(value: float) -> str:
    digits = 0 if value == math.floor(value) else 2
    return f"{value:.{digits}f}"


def published_notes(datasets: Sequence[RGBTDataset]) -> list[str]:
    """Counts of the splits on disk beside the published ones; nothing where none are known, or only a part was read.

    Args:
        datasets: The splits of one data set, one per role.
    """
    published = datasets[0].published_frames if datasets else ()
    if not published or any(dataset.limit is not None for dataset in datasets):
        return []
    found: dict[str, int] = {}
    for dataset in datasets:  # a held-out part and the rest are one split on disk
        part = len(dataset) if dataset.holdout is not None or dataset.split_name not in found else 0
        found[dataset.split_name] = found.get(dataset.split_name, 0) + part
    shown = {split: found[split] for split in published[0] if split in found}
    if not shown:
        return []
    known = " or ".join("/".join(str(counts[split]) for split in shown) for counts in published)
    mine = "/".join(map(str, shown.values()))
    names = "/".join(shown)
    equal = any(all(counts[split] == shown[split] for split in shown) for counts in published)
    verdict = "as published" if equal else "no error, but scores compare on equal splits only"
    flips = sum(name.endswith(FLIP) for dataset in datasets for name in dataset.names)
    mirrored = f"; {flips} of them are mirror images ({FLIP})" if flips else ""
    return [f"frames of {names}: {mine}{mirrored}; published: {known} ({verdict})"]
