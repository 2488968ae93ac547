"""The report as one page that needs nothing but itself: facts, findings, charts and sample frames."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import mdg
from mdg.data.check.findings import by_kind
from mdg.data.check.output import headline
from mdg.data.check.page_parts import class_bars, finding_list, overview_table, sample_card, text
from mdg.data.check.page_style import STYLE
from mdg.data.check.report import DataReport
from mdg.data.check.samples import make_samples
from mdg.utils.files import write_text


def write_page(file: Path, report: DataReport) -> None:
    """Writes the page, making its folder; reads the sample frames once more."""
    write_text(file, make_page(report))


def make_page(report: DataReport) -> str:
    """The page as HTML."""
    body = [_header(report), _findings(report), _splits(report), _values(report), _samples(report), _footer()]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(report.name)}: data check</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, body))
        + "\n</main>\n</body>\n</html>\n"
    )


def _header(report: DataReport) -> str:
    style = "bad" if report.count(problems=True) else "warn" if report.findings else "good"
    facts = {"configuration": report.config, "folder": report.root}
    if report.splits:
        dataset = next(iter(report.splits.values())).dataset
        facts |= {"preparation": dataset.preparation(), "classes": f"{len(dataset.classes)}"}
    rows = "".join(f"<dt>{text(key)}</dt><dd>{text(value)}</dd>" for key, value in facts.items() if value)
    notes = "".join(f"<dt>note</dt><dd>{text(note)}</dd>" for note in report.notes)
    return (
        f'<header><div class="top"><h1>{text(report.name)}</h1>'
        f'<span class="verdict {style}">{text(headline(report))}</span></div>'
        f'<dl class="facts">{rows}{notes}</dl></header>'
    )


def _findings(report: DataReport) -> str:
    sections = []
    for title, problems in (("Problems", True), ("Warnings", False)):
        groups = by_kind(report.findings, problems)
        if groups:
            lists = "".join(finding_list(kind, findings, report.root) for kind, findings in groups.items())
            sections.append(f"<section><h2>{title}</h2>{lists}</section>")
    return "\n".join(sections)


def _splits(report: DataReport) -> str:
    if not report.splits:
        return ""
    bars = "".join(class_bars(split) for split in report.splits.values())
    return (
        f"<section><h2>Splits</h2>{overview_table(report)}</section>\n<section><h2>Classes</h2>"
        '<p class="soft">Share of the labelled pixels, on a logarithmic scale: every line is ten times the one before '
        f'it. A class without a pixel has no IoU (NaN) on that split.</p><div class="grid">{bars}</div></section>'
    )


def _values(report: DataReport) -> str:
    lines = report.yaml_lines()
    if not lines:
        return ""
    yaml = "\n".join(map(text, lines))
    return f'<section><h2>For the configuration</h2><div class="card"><pre>{yaml}</pre></div></section>'


def _samples(report: DataReport) -> str:
    sections = []
    for split in report.splits.values():
        cards = "".join(sample_card(sample, split) for sample in make_samples(split))
        if cards:
            sections.append(
                f'<section><h2>Frames of {text(split.role)}</h2><div class="grid samples">{cards}</div></section>'
            )
    return "\n".join(sections)


def _footer() -> str:
    when = datetime.now().strftime("%Y-%m-%d %H:%M")
    return f"<footer>Written by tools/check_data.py of mdg {text(mdg.__version__)}, {when}.</footer>"
