"""Pieces of the page. Everything that comes from the data or the configuration passes through :func:`text`.

Shape suffixes: K classes, 3 the channels R, G, B.
"""

from __future__ import annotations

import html
import math

import numpy as np

from mdg.data.check.findings import KINDS, Finding
from mdg.data.check.output import overview_rows, per_cent, shorten_paths
from mdg.data.check.report import DataReport
from mdg.data.check.samples import Sample
from mdg.data.check.splits import SplitReport

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
