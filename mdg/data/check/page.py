"""The report as one page that needs nothing but itself: facts, findings, charts and sample frames.

Everything that comes from the data or the configuration passes through :func:`text`.

Shape suffixes: K classes, 3 the channels R, G, B.
"""

from __future__ import annotations

import html
import math
from datetime import datetime
from pathlib import Path

import numpy as np

import mdg
from mdg.data.check.findings import KINDS, Finding, by_kind
from mdg.data.check.output import headline, overview_rows, per_cent, shorten_paths
from mdg.data.check.report import DataReport
from mdg.data.check.samples import Sample, make_samples
from mdg.data.check.splits import SplitReport
from mdg.utils.files import write_text

LISTED = 200  # findings of a kind
DECADES = 5  # of the logarithmic bars: 0.001 % to 100 %
AXIS = {"0.01": 20, "1": 60}  # mark in per cent -> place in per cent of the width


def text(value: object) -> str:
    """Anything as text that is safe inside elements and quoted attributes."""
    return html.escape(str(value), quote=True)


def overview_table(report: DataReport) -> str:
    """Facts of the splits side by side."""
    heads = "".join(f'<th scope="col">{text(split.role)}{_split_label(split)}</th>' for split in report.splits.values())
    rows = "".join(
        f'<tr><th scope="row">{text(label)}</th>{"".join(f"<td>{text(cell)}</td>" for cell in cells)}</tr>'
        for label, cells in overview_rows(report)
    )
    return f'<div class="card"><table><thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


def _split_label(split: SplitReport) -> str:
    label = split.dataset.split_label
    return "" if label == split.role else f'<div class="soft">{text(label)}</div>'


def class_bars(split: SplitReport) -> str:
    """Share of each class as a logarithmic bar in its colour, with the numbers."""
    axis = "".join(f'<span style="left:{place}%">{mark}</span>' for mark, place in AXIS.items())
    cells = [f'<span class="head">class</span><span class="head axis">{axis}</span>']
    cells.append('<span class="head number">% of pixels</span><span class="head number">frames</span>')
    shares_K = split.class_shares()
    for k, name in enumerate(split.dataset.classes):
        frames = int(split.class_frames_K[k])
        cells.append(f"<span>{_swatch(split, k)}{text(name)}</span>")
        cells.append(f'<div class="track">{_bar(split, k, float(shares_K[k]))}</div>')
        share = f"{split.class_pixels_K[k]:,} pixels"
        style = "number" if frames else "number none"
        cells.append(f'<span class="{style}" title="{share}">{per_cent(float(shares_K[k]))}</span>')
        cells.append(f'<span class="{style}">{frames:,}</span>')
    ignored = f'<p class="soft">ignored: {split.ignored_pixels:,} pixels</p>' if split.ignored_pixels else ""
    head = f'<h3>{text(split.role)} <span class="soft">{len(split.records):,} frames</span></h3>'
    return f'<div class="card">{head}<div class="bars">{"".join(cells)}</div>{ignored}</div>'


def _bar(split: SplitReport, k: int, share: float) -> str:
    if math.isnan(share) or share <= 0:
        return ""
    width = min(100.0, max(1.0, 100 * (1 + math.log10(share) / DECADES)))
    return f'<div class="bar" style="width:{width:.1f}%;background:{_colour(split.dataset.palette_K3, k)}"></div>'


def _swatch(split: SplitReport, k: int) -> str:
    return f'<i class="swatch" style="background:{_colour(split.dataset.palette_K3, k)}"></i>'


def _colour(palette_K3: np.ndarray, k: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*palette_K3[k].tolist())


def finding_list(kind: str, findings: list[Finding], root: str | None) -> str:
    """The findings of a kind, folded in where there are many."""
    title, problem = KINDS[kind]
    items = "".join(
        f'<li><span class="tag">{text(finding.split)}</span>'
        f'<span class="path">{text(shorten_paths(finding.message, root))}</span></li>'
        for finding in findings[:LISTED]
    )
    if len(findings) > LISTED:
        items += f'<li class="soft">and {len(findings) - LISTED} more; the JSON report lists all of them</li>'
    style = "bad" if problem else "warn"
    badge = f'<span class="verdict {style}">{len(findings)}</span>'
    state = " open" if problem or len(findings) <= 10 else ""
    return f'<details class="card"{state}><summary>{text(title)} {badge}</summary><ul>{items}</ul></details>'


def sample_card(sample: Sample, split: SplitReport) -> str:
    """RGB, thermal and label of a frame, with the classes in it."""
    tags = [tag for tag in (sample.condition, *sample.reasons) if tag]
    caption = f'<span class="path">{text(sample.name)}</span>' + "".join(
        f'<span class="tag">{text(tag)}</span>' for tag in tags
    )
    pictures = "".join(
        f'<div><img src="{uri}" alt="{text(f"{title} of {sample.name}")}"><span>{text(title)}</span></div>'
        for title, uri in sample.pictures
    )
    classes = "".join(f"<span>{_swatch(split, k)}{text(split.dataset.classes[k])}</span>" for k in sample.classes)
    return (
        f'<figure class="card"><figcaption>{caption}</figcaption><div class="triplet">{pictures}</div>'
        f'<div class="classes">{classes}</div></figure>'
    )


STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #fff; --ink: #1c2330; --soft: #5c6675; --line: #e1e5ea;
  --grid: #e9ecf0; --bad: #b3261e; --bad-ground: #fdecea; --warn: #8a5a00; --warn-ground: #fff4dc; --good: #1b6e3c;
  --good-ground: #e6f4ea; }
@media (prefers-color-scheme: dark) { :root { --ground: #12151b; --card: #1b2028; --ink: #e6e9ee; --soft: #9aa4b2;
  --line: #2d343f; --grid: #29303a; --bad: #ff9a92; --bad-ground: #3c1f1d; --warn: #f1c465; --warn-ground: #3a2f14;
  --good: #86d9a3; --good-ground: #17311f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 32px 20px 48px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0; }
h2 { font-size: 19px; margin: 36px 0 12px; }
h3 { font-size: 15px; margin: 0 0 10px; }
p { margin: 0 0 10px; }
code, pre, .path { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: 13px; }
.soft { color: var(--soft); }
.top { display: flex; flex-wrap: wrap; gap: 12px 16px; align-items: center; margin-bottom: 6px; }
.verdict { padding: 3px 12px; border-radius: 999px; font-weight: 600; font-size: 14px; }
.bad { color: var(--bad); background: var(--bad-ground); }
.warn { color: var(--warn); background: var(--warn-ground); }
.good { color: var(--good); background: var(--good-ground); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px;
  overflow-x: auto; }
.grid { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); }
.grid.samples { grid-template-columns: repeat(auto-fill, minmax(min(100%, 500px), 1fr)); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 14px 5px 0; border-top: 1px solid var(--line); vertical-align: top; }
thead th, thead td { border-top: 0; }
tbody th { font-weight: 500; color: var(--soft); white-space: nowrap; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 12px 0 0; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.bars { display: grid; grid-template-columns: max-content minmax(70px, 1fr) max-content max-content; gap: 5px 10px;
  align-items: center; font-size: 13px; font-variant-numeric: tabular-nums; }
.bars .head { color: var(--soft); font-size: 12px; }
.bars .number { text-align: right; }
.bars .none { color: var(--warn); font-weight: 600; }
.axis { position: relative; height: 1.3em; }
.axis span { position: absolute; transform: translateX(-50%); }
.track { height: 15px; background: repeating-linear-gradient(90deg, var(--grid) 0 1px, transparent 1px 20%);
  border-right: 1px solid var(--grid); }
.bar { height: 100%; border: 1px solid rgba(127, 127, 127, .75); border-radius: 2px; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px;
  border: 1px solid rgba(127, 127, 127, .8); vertical-align: -1px; }
details { margin-bottom: 10px; }
details > summary { cursor: pointer; font-weight: 600; }
details ul { margin: 8px 0 0; padding: 0; list-style: none; max-height: 26em; overflow-y: auto; }
details li { padding: 5px 0; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
.tag { display: inline-block; padding: 0 8px; margin-right: 8px; border-radius: 999px; font-size: 12px;
  border: 1px solid var(--line); color: var(--soft); white-space: nowrap; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
figure { margin: 0; }
.triplet { display: grid; grid-template-columns: repeat(3, 1fr); gap: 6px; }
.triplet img { width: 100%; height: auto; display: block; border-radius: 4px; background: #000; }
.triplet span { font-size: 12px; color: var(--soft); }
figcaption { margin-bottom: 8px; display: flex; flex-wrap: wrap; gap: 4px 0; align-items: center; }
figcaption .path { font-weight: 600; margin-right: 10px; overflow-wrap: anywhere; }
.classes { margin-top: 6px; font-size: 12px; color: var(--soft); display: flex; flex-wrap: wrap; gap: 2px 12px; }
footer { margin-top: 40px; color: var(--soft); font-size: 13px; }
""".strip()


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
