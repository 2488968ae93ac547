"""The report on the terminal and as JSON, and what the page shows in the same words.

Shape suffixes: K classes.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

import mdg
from mdg.data.check.findings import KINDS, NAMES, Finding, by_kind, parts_of
from mdg.data.check.frames import Stored
from mdg.data.check.report import DataReport
from mdg.data.check.splits import SplitReport
from mdg.data.datasets.file_dataset import PARTS
from mdg.errors import first_few
from mdg.utils.files import write_json

SIZES = 3  # different ones in a cell
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
    present = [part for part in PARTS if any(part in parts_of(split.dataset) for split in splits)]
    parts = {part: [_without_channels(split.stored[part]) for split in splits] for part in present}
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
    shown = [f"{height}x{width}" + ("" if alone else f" ({count:,})") for (height, width), count in ranked]
    return first_few(shown, SIZES)


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
    return "{:.3f}, {:.3f}".format(*split.thermal_mean_std()) if split.readable and _has_thermal(split) else ""


def _has_thermal(split: SplitReport) -> bool:
    return "thermal" in split.dataset.cameras


def _count(report: DataReport, split: SplitReport, problems: bool) -> str:
    mine = [finding for finding in report.findings if split.role in finding.split.split(", ")]
    return str(sum(finding.problem == problems for finding in mine))


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
        "stored": {part: _formats(split.stored[part]) for part in parts_of(split.dataset)},
        "thermal": _thermal(split) if _has_thermal(split) else None,
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
        "quantiles": split.thermal_quantiles(),
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


FINDINGS = 20  # of a kind on the terminal
WIDTH = 160  # characters of a finding; the first of its kind is shown in full
STYLES = {True: "bold red", False: "bold yellow"}


def print_report(report: DataReport, console: Console) -> None:
    """Prints tables, findings, values to paste, notes, and the verdict last."""
    # Text everywhere: names of files may hold what rich would take for markup.
    console.print(Text(f"{report.name} of {report.config or 'a configuration'}", "bold"))
    if report.root is not None:
        console.print(Text(f"paths are below {report.root}"))
    if report.splits:
        console.print(_overview(report))
        console.print(_class_table(report))
    for problems in (True, False):
        for kind, findings in by_kind(report.findings, problems).items():
            _print_kind(kind, findings, report, console)
    _print_values(report, console)
    for note in report.notes:
        console.print(Text(f"note: {note}"))
    console.print(Text(f"{report.name}: {headline(report)}", _verdict_style(report)))


def _overview(report: DataReport) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for split in report.splits.values():
        label = split.dataset.split_label
        table.add_column(Text(split.role if label == split.role else f"{split.role} ({label})"))
    for label, cells in overview_rows(report):
        table.add_row(Text(label), *map(Text, cells))
    return table


def _class_table(report: DataReport) -> Table:
    splits = list(report.splits.values())
    table = Table(title="classes: share of the labelled pixels, and frames with them", title_justify="left")
    table.add_column("id", justify="right")
    table.add_column("class")
    for split in splits:
        table.add_column(Text(f"{split.role} %"), justify="right")
        table.add_column("frames", justify="right")
    for k, name in enumerate(splits[0].dataset.classes):
        cells = [(per_cent(split.class_shares()[k]), f"{split.class_frames_K[k]:,}") for split in splits]
        table.add_row(str(k), Text(name), *[cell for pair in cells for cell in pair])
    if any(split.ignored_pixels for split in splits):
        ignored = [(f"{split.ignored_pixels:,} px", "") for split in splits]
        table.add_row("", "ignored", *[cell for pair in ignored for cell in pair])
    return table


def _print_kind(kind: str, findings: list[Finding], report: DataReport, console: Console) -> None:
    title, problem = KINDS[kind]
    word = "problem" if problem else "warning"
    console.print(Text(f"{word}: {title} ({len(findings)})", STYLES[problem]))
    for place, finding in enumerate(findings[:FINDINGS]):
        line = f"{finding.split}: {shorten_paths(finding.message, report.root)}"
        # Messages of a kind give the same advice; once is enough.
        console.print(Text(f"  {line if place == 0 or len(line) <= WIDTH else line[: WIDTH - 3] + '...'}"))
    if len(findings) > FINDINGS:
        console.print(Text(f"  and {len(findings) - FINDINGS} more: --json FILE lists all of them"))


def _print_values(report: DataReport, console: Console) -> None:
    lines = report.yaml_lines()
    if lines:
        console.print(Text("for the configuration:", "bold"))
        for line in lines:
            console.print(Text(f"  {line}"))


def _verdict_style(report: DataReport) -> str:
    if report.count(problems=True):
        return STYLES[True]
    return STYLES[False] if report.findings else "bold green"
