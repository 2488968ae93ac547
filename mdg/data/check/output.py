"""What terminal and page both show of the splits: rows of facts, and numbers as people read them."""

from __future__ import annotations

import math
from collections import Counter

from mdg.data.check.findings import NAMES
from mdg.data.check.report import DataReport
from mdg.data.check.splits import SplitReport
from mdg.data.check.stored import Stored
from mdg.data.datasets.file_dataset import PARTS

SHOWN = 3  # different sizes in a cell
Rows = list[tuple[str, list[str]]]


def overview_rows(report: DataReport) -> Rows:
    """A label and one cell per split; rows that would be empty are left out."""
    splits = list(report.splits.values())
    rows = [
        ("frames", [f"{len(split.records):,}" for split in splits]),
        ("complete", [_complete(split) for split in splits]),
        ("by condition", [", ".join(f"{n:,} {name}" for name, n in sorted(s.conditions.items())) for s in splits]),
        *_size_rows(splits),
        ("thermal values", [_thermal_values(split) for split in splits]),
        ("RGB mean", [_triple(split, 0) for split in splits]),
        ("RGB std", [_triple(split, 1) for split in splits]),
        ("thermal mean, std", [_pair(split) for split in splits]),
        ("hash of the names", [split.dataset.fingerprint()[:8] for split in splits]),
        ("hash of the contents", [(split.contents or "")[:8] for split in splits]),
        ("problems", [_count(report, split, problems=True) for split in splits]),
        ("warnings", [_count(report, split, problems=False) for split in splits]),
    ]
    return [(label, cells) for label, cells in rows if any(cells)]


def per_cent(share: float) -> str:
    """With the digits that small classes need: "92.41", "0.037", "<0.001"."""
    if math.isnan(share):
        return "NaN"
    value = 100 * share
    if 0 < value < 0.001:
        return "<0.001"
    return f"{value:.2f}" if value >= 1 or value == 0 else f"{value:.3f}"


def shorten_paths(text: str, root: str | None) -> str:
    """The text with paths below the root of the data set instead of whole ones."""
    return text.replace(f"{root}/", "").replace(f"{root}\\", "") if root and root != "." else text


def headline(report: DataReport) -> str:
    """ "12 problems, 3 warnings", or that nothing is wrong."""
    problems, warnings = report.count(problems=True), report.count(problems=False)
    if not problems and not warnings:
        return "nothing is wrong"
    shown = [f"{n} {word}{'s' * (n != 1)}" for n, word in ((problems, "problem"), (warnings, "warning")) if n]
    return ", ".join([*([] if problems else ["no problems"]), *shown])


def _complete(split: SplitReport) -> str:
    total = len(split.records)
    if split.complete == split.readable:
        return f"{split.complete:,}" if split.complete < total else "all"
    return f"{split.complete:,}, of them {split.readable:,} readable"


def _size_rows(splits: list[SplitReport]) -> Rows:
    """One row of sizes, or one per part where they are stored in different sizes."""
    used = [_sizes(split.sizes) for split in splits]
    parts = {part: [_without_channels(split.stored[part]) for split in splits] for part in PARTS}
    together = [set().union(*sizes) for sizes in zip(*parts.values(), strict=True)]
    if all(len(sizes) <= 1 for sizes in together) or all(counts == parts["label"] for counts in parts.values()):
        return [("size", used)]
    rows = [(f"size of {NAMES[part]}", [_sizes(sizes) for sizes in counts]) for part, counts in parts.items()]
    return [*rows, ("size in training", used)]


def _without_channels(formats: Counter[Stored]) -> Counter[tuple[int, int]]:
    sizes: Counter[tuple[int, int]] = Counter()
    for stored, count in formats.items():
        sizes[stored.height, stored.width] += count
    return sizes


def _sizes(sizes: Counter[tuple[int, int]]) -> str:
    ranked = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    alone = len(ranked) == 1
    shown = [f"{height}x{width}" + ("" if alone else f" ({count:,})") for (height, width), count in ranked[:SHOWN]]
    return ", ".join(shown) + (f" and {len(ranked) - SHOWN} more" if len(ranked) > SHOWN else "")


def _thermal_values(split: SplitReport) -> str:
    values = split.values
    if not values.total:
        return ""
    low, high = values.percentile(0.1), values.percentile(99.9)
    dtypes = " and ".join(sorted(split.thermal_dtypes))
    return f"{dtypes}, {values.lowest:g}..{values.highest:g}; 99.8 % in {low:g}..{high:g}"


def _triple(split: SplitReport, which: int) -> str:
    return " ".join(f"{pair[which]:.3f}" for pair in split.rgb_mean_std()) if split.readable else ""


def _pair(split: SplitReport) -> str:
    return "{:.3f}, {:.3f}".format(*split.thermal_mean_std()) if split.readable else ""


def _count(report: DataReport, split: SplitReport, problems: bool) -> str:
    mine = [finding for finding in report.findings if split.role in finding.split.split(", ")]
    return str(sum(finding.problem == problems for finding in mine))
