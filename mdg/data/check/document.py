"""The report as plain values, for JSON.

Shape suffixes: K classes.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import mdg
from mdg.data.check.report import DataReport
from mdg.data.check.splits import SplitReport
from mdg.data.check.stored import Stored
from mdg.utils.files import write_json

VERSION = 1  # of the layout of the document


def as_document(report: DataReport) -> dict[str, Any]:
    """Everything that is known, every finding included. It does not depend on the number of workers or the time."""
    limits = report.thermal_range()
    return {
        "version": VERSION,
        "mdg": mdg.__version__,
        "config": report.config,
        "dataset": report.name,
        "root": report.root,
        "problems": report.count(problems=True),
        "warnings": report.count(problems=False),
        "splits": {role: _split(split) for role, split in report.splits.items()},
        "normalize": report.normalize(),
        "thermal_scaling": limits and {"mode": "fixed", "range": list(limits)},
        "notes": report.notes,
        "findings": [finding.as_dict() for finding in report.findings],
    }


def write_document(file: Path, report: DataReport) -> None:
    """Writes the report as JSON, making the folder; NaN becomes null."""
    write_json(file, as_document(report))


def _split(split: SplitReport) -> dict[str, Any]:
    return {
        "facts": split.dataset.facts(),
        "contents_sha256": split.contents,
        "frames": {
            "listed": len(split.records),
            "complete": split.complete,
            "readable": split.readable,
            "conditions": dict(sorted(split.conditions.items())),
        },
        "sizes": [{"height": h, "width": w, "frames": count} for (h, w), count in _by_count(split.sizes)],
        "stored": {part: _formats(formats) for part, formats in split.stored.items()},
        "thermal": _thermal(split),
        "rgb": {"mean_std": [list(pair) for pair in split.rgb_mean_std()]},
        "classes": _classes(split),
        "ignored_pixels": split.ignored_pixels,
    }


def _formats(formats: Counter[Stored]) -> list[dict[str, int]]:
    return [{**stored._asdict(), "files": count} for stored, count in _by_count(formats)]


def _thermal(split: SplitReport) -> dict[str, Any]:
    values = split.values
    return {
        "dtypes": dict(sorted(split.thermal_dtypes.items())),
        "stored_lowest": values.lowest,
        "stored_highest": values.highest,
        "stored_percentile_0.1": values.percentile(0.1),
        "stored_percentile_99.9": values.percentile(99.9),
        "mean_std": list(split.thermal_mean_std()),
    }


def _classes(split: SplitReport) -> list[dict[str, Any]]:
    rows = zip(split.dataset.classes, split.class_pixels_K, split.class_shares(), split.class_frames_K, strict=True)
    return [
        {"id": k, "name": name, "pixels": int(pixels), "share": float(share), "frames": int(frames)}
        for k, (name, pixels, share, frames) in enumerate(rows)
    ]


def _by_count(counts: Counter) -> list[tuple[Any, int]]:
    """The most frequent first; equally frequent ones in their own order, so that nothing depends on chance."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
