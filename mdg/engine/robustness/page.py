"""Robustness as one page that needs nothing but itself; page.html holds the markup."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from mdg.engine.robustness.pictures import Scene
from mdg.engine.robustness.plan import group_of
from mdg.engine.robustness.results import Measured, Robustness, miou
from mdg.engine.robustness.tables import explanations, protocols, titled_grids
from mdg.engine.run_report import curves
from mdg.engine.run_report.page import environment_rows
from mdg.utils.launched import command_line
from mdg.utils.pages import render

LEGIBLE = 55.0  # per cent lost, above which text on the colour is white


class HeatCell(NamedTuple):
    """A score: as text, the share of the clean one that is lost (0..1), and whether the text is white."""

    text: str
    lost: float
    white: bool


def make_page(robustness: Robustness, scene: Scene, environment: dict[str, Any]) -> str:
    """The page as HTML; everything that comes from a run is escaped."""
    names = [run.name for run in robustness.runs]
    return render(
        Path(__file__).with_name("page.html"),
        title=names[0] if len(names) == 1 else f"{len(names)} runs",
        protocol=robustness.runs[0].protocol,
        protocols=protocols(robustness),
        tables=titled_grids(robustness, per_corruption=False),
        notes=explanations(robustness),
        charts=[(group, charts(robustness, group)) for group in robustness.groups()],
        severities=[f"{severity:g}" for severity in robustness.severities],
        heats=[(run.name, heat_rows(robustness, run)) for run in robustness.runs],
        scene=scene,
        checkpoints=[(run.name, run.checkpoint, run.sha256) for run in robustness.runs],
        environment=environment_rows(environment),
        command=command_line(),
        width=curves.WIDTH,
        height=curves.HEIGHT,
        frame=(curves.LEFT, curves.TOP, curves.WIDTH - curves.RIGHT, curves.HEIGHT - curves.BOTTOM),
    )


def charts(robustness: Robustness, group: str) -> list[curves.Chart]:
    """mIoU against severity, one chart for each corruption of a group, a line for each run; all charts of the page
    share one axis, so that what hurts more is seen."""
    every = [value for run in robustness.runs for value in _values(run) if not math.isnan(value)]
    span = (min([0.0, *every]), max(every)) if every else (0.0, 100.0)
    return [
        curves.draw(name, lines, 5, along="severity", span=span)
        for name, lines in ((one.name, _lines(robustness, one.name)) for one in robustness.corruptions)
        if group_of(name.partition(" of ")[0]) == group and any(lines.values())
    ]


def _values(run: Measured) -> list[float]:
    return [miou(run.clean), *[value for scores in run.scores(miou).values() for value in scores.values()]]


def _lines(robustness: Robustness, name: str) -> dict[str, list[tuple[float, float]]]:
    return {
        run.name: [
            (severity, value)
            for severity, value in [(0.0, miou(run.clean)), *run.scores(miou)[name].items()]
            if not math.isnan(value)
        ]
        for run in robustness.runs
    }


def heat_rows(robustness: Robustness, run: Measured) -> list[tuple[str, list[HeatCell]]]:
    """Corruptions of a run with the clean score, a cell for each severity, and their mean."""
    whole = run.retained(miou)
    rows = []
    for name, scores in run.scores(miou).items():
        values = [whole.clean, *[scores[severity] for severity in robustness.severities], whole.corruptions[name]]
        rows.append((name, [_heat(value, whole.clean) for value in values]))
    return rows


def _heat(value: float, clean: float) -> HeatCell:
    if math.isnan(value) or not clean > 0:
        return HeatCell("–", 0.0, False)
    lost = min(max(1 - value / clean, 0.0), 1.0)
    return HeatCell(f"{value:.1f}", lost, 100 * lost > LEGIBLE)
