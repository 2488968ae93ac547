"""A comparison as one page that needs nothing but itself; page.html holds markup and style."""

from __future__ import annotations

from pathlib import Path

from mdg.engine.compare.comparison import Comparison, Setting
from mdg.engine.compare.tables import (
    base_notes,
    grids,
    row_differences,
    row_name,
    setting_name,
)
from mdg.utils.pages import data_uri, render
from mdg.utils.score_chart import Bar, score_png


def make_page(comparison: Comparison, per_class: bool = False) -> str:
    """The page as HTML: the tables, a chart per setting, the protocols, and where the runs lie and how they differ."""
    first = comparison.rows[0]
    return render(
        Path(__file__).with_name("page.html"),
        tables=grids(comparison, per_class),
        charts=[chart for chart in (_chart(comparison, setting) for setting in comparison.settings) if chart],
        settings=[
            {"name": setting_name(setting), "lines": setting.lines(), "warnings": setting.protocol.warnings()}
            for setting in comparison.settings
        ],
        rows=[
            {
                "name": row_name(row),
                "files": [str(result.file) for result in row.results],
                "differs": row_differences(row, first),
            }
            for row in comparison.rows
        ],
        notes=base_notes(comparison),
    )


def _chart(comparison: Comparison, setting: Setting) -> tuple[str, str] | None:
    """Title and picture of the primary score; None where a single row has it."""
    metric = setting.metrics()[0]
    bars = []
    for row in comparison.rows:
        values = [result.scores[metric] for result in row.of(setting)]
        if values:
            difference = comparison.difference(row, setting)
            interval = None if difference is None else (difference.mean, difference.low, difference.high)
            bars.append(Bar(row_name(row), values, interval))
    title = f"{setting_name(setting)} {metric}, {setting.protocol.split} of {setting.protocol.dataset}"
    return (title, data_uri(score_png(bars, title), "png")) if len(bars) > 1 else None
