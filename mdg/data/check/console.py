"""The report on the terminal: tables of the splits, then everything that is wrong, by kind."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mdg.data.check.findings import KINDS, Finding, by_kind
from mdg.data.check.output import headline, overview_rows, per_cent, shorten_paths
from mdg.data.check.report import DataReport

SHOWN = 20  # findings of a kind
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
        console.print(_classes(report))
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


def _classes(report: DataReport) -> Table:
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
    for place, finding in enumerate(findings[:SHOWN]):
        line = f"{finding.split}: {shorten_paths(finding.message, report.root)}"
        # Messages of a kind give the same advice; once is enough.
        console.print(Text(f"  {line if place == 0 or len(line) <= WIDTH else line[: WIDTH - 3] + '...'}"))
    if len(findings) > SHOWN:
        console.print(Text(f"  and {len(findings) - SHOWN} more: --json FILE lists all of them"))


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
