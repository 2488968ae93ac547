"""The report as one page that needs nothing but itself: facts, findings, charts and sample frames.

The template page.html holds markup and style; here is what it shows.

Shape suffixes: K classes, 3 the channels R, G, B.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from mdg.data.check.findings import KINDS, Finding, by_kind
from mdg.data.check.output import headline, overview_rows, per_cent, shorten_paths
from mdg.data.check.report import DataReport
from mdg.data.check.samples import make_samples
from mdg.data.check.splits import SplitReport
from mdg.utils.files import write_text
from mdg.utils.pages import render
from mdg.utils.pictures import css_colour

LISTED = 200  # findings of a kind
OPEN = 10  # warnings of a kind that are not folded in
DECADES = 5  # of the logarithmic bars: 0.001 % to 100 %
AXIS = {"0.01": 20, "1": 60}  # mark in per cent -> place in per cent of the width


def write_page(file: Path, report: DataReport) -> None:
    """Writes the page, making its folder; reads the sample frames once more."""
    write_text(file, make_page(report))


def make_page(report: DataReport) -> str:
    """The page as HTML; everything that comes from the data or the configuration is escaped."""
    return render(
        Path(__file__).with_name("page.html"),
        name=report.name,
        style="bad" if report.count(problems=True) else "warn" if report.findings else "good",
        verdict=headline(report),
        facts=_facts(report),
        findings=_findings(report),
        overview=overview_rows(report),
        axis=AXIS.items(),
        splits=[_split(split) for split in report.splits.values()],
        values=report.yaml_lines(),
    )


def _facts(report: DataReport) -> list[tuple[str, str]]:
    facts = {"configuration": report.config, "folder": report.root}
    if report.splits:
        dataset = next(iter(report.splits.values())).dataset
        facts |= {"preparation": dataset.preparation(), "classes": f"{len(dataset.classes)}"}
    return [(key, value) for key, value in facts.items() if value] + [("note", note) for note in report.notes]


def _findings(report: DataReport) -> list[tuple[str, list[dict[str, Any]]]]:
    headings = []
    for heading, problems in (("Problems", True), ("Warnings", False)):
        groups = by_kind(report.findings, problems)
        if groups:
            headings.append((heading, [_kind(*group, report.root) for group in groups.items()]))
    return headings


def _kind(kind: str, findings: list[Finding], root: str | None) -> dict[str, Any]:
    title, problem = KINDS[kind]
    return {
        "title": title,
        "style": "bad" if problem else "warn",
        "open": problem or len(findings) <= OPEN,
        "count": len(findings),
        "listed": [(finding.split, shorten_paths(finding.message, root)) for finding in findings[:LISTED]],
        "more": max(0, len(findings) - LISTED),
    }


def _split(split: SplitReport) -> dict[str, Any]:
    classes = _classes(split)
    return {
        "role": split.role,
        "label": split.dataset.split_label,
        "frames": len(split.records),
        "ignored": split.ignored_pixels,
        "classes": classes,
        "samples": [
            {
                "name": sample.name,
                "tags": [tag for tag in (sample.condition, *sample.reasons) if tag],
                "pictures": sample.pictures,
                "classes": [classes[k] for k in sample.classes],
            }
            for sample in make_samples(split)
        ],
    }


def _classes(split: SplitReport) -> list[dict[str, Any]]:
    columns = (split.class_shares(), split.class_pixels_K, split.class_frames_K, split.dataset.palette_K3)
    return [
        {
            "name": name,
            "colour": css_colour(colour_3),
            "width": _width(float(share)),
            "share": per_cent(float(share)),
            "pixels": int(pixels),
            "frames": int(frames),
        }
        for name, share, pixels, frames, colour_3 in zip(split.dataset.classes, *columns, strict=True)
    ]


def _width(share: float) -> str | None:
    """Of the bar in per cent; None, and no bar, for a class without a pixel."""
    if math.isnan(share) or share <= 0:
        return None
    return f"{min(100.0, max(1.0, 100 * (1 + math.log10(share) / DECADES))):.1f}"
