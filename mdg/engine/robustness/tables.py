"""What was measured as tables: on a terminal, and as Markdown for papers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from mdg.engine.robustness.results import Measured, Robustness, lost, miou, miou_in
from mdg.engine.robustness.summary import LEAST, Retained
from mdg.utils import markdown
from mdg.utils.grids import print_grid

Grid = list[list[str]]
CAMERA_TITLES = {"rgb": "RGB", "thermal": "thermal"}


def cell_text(value: float, digits: int = 2) -> str:
    """ "61.70", and a dash for what does not exist."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def summary_grid(robustness: Robustness) -> Grid:
    """Rows are runs, columns the clean score, groups, cameras and the summaries."""
    against = ["mCE", "relative mCE"] if robustness.reference is not None else []
    grid = [["mIoU", "clean", *_columns(robustness), "mPC", "rPC", *against]]
    for run in robustness.runs:
        errors = robustness.errors(run)
        cells = [] if errors is None else [cell_text(errors.mce, 1), cell_text(errors.relative_mce, 1)]
        grid.append([run.name, *_cells(robustness, run.retained(miou)), *cells])
    return grid


def condition_grid(robustness: Robustness) -> Grid:
    """The same by day and by night; empty where the data set does not tell them apart."""
    rows = [
        [f"{run.name}, {condition}", *_cells(robustness, run.retained(miou_in(condition)))]
        for condition in robustness.runs[0].conditions()
        for run in robustness.runs
    ]
    return [["mIoU", "clean", *_columns(robustness), "mPC", "rPC"], *rows] if rows else []


def object_grid(robustness: Robustness) -> Grid:
    """What is lost of the objects that RGB, thermal or both show; empty where they were not scored apart."""
    rows = []
    for kind in robustness.runs[0].kinds():
        for run in robustness.runs:
            whole = lost(run, kind)
            rows.append([f"{run.name}, {kind}", *_cells(robustness, whole)[:-1]])
    return [["share lost, %", "found clean, %", *_columns(robustness), "all"], *rows] if rows else []


def corruption_grid(robustness: Robustness, run: Measured) -> Grid:
    """Corruptions of a run, a column for each severity."""
    whole, errors = run.retained(miou), robustness.errors(run)
    against = ["CE", "relative CE"] if errors is not None else []
    grid = [[run.name, "0", *[f"{severity:g}" for severity in robustness.severities], "mean", "retained, %", *against]]
    for name, by_severity in run.scores(miou).items():
        values = [whole.clean, *[by_severity[severity] for severity in robustness.severities], whole.corruptions[name]]
        share = 100 * whole.corruptions[name] / whole.clean if whole.clean else math.nan
        cells = [cell_text(value) for value in values] + [cell_text(share, 1)]
        if errors is not None:
            cells += [cell_text(errors.ce[name], 1), cell_text(errors.relative.get(name, math.nan), 1)]
        grid.append([name, *cells])
    return grid


def _columns(robustness: Robustness) -> list[str]:
    return [*robustness.groups(), *[CAMERA_TITLES[camera] for camera in robustness.cameras()]]


def _cells(robustness: Robustness, whole: Retained) -> list[str]:
    groups = [cell_text(whole.groups[group]) for group in robustness.groups()]
    cameras = [cell_text(whole.cameras[camera]) for camera in robustness.cameras()]
    return [cell_text(whole.clean), *groups, *cameras, cell_text(whole.mpc), cell_text(whole.rpc, 1)]


def explanations(robustness: Robustness) -> list[str]:
    """What the numbers are."""
    severities = ", ".join(f"{severity:g}" for severity in robustness.severities)
    lines = [
        f"mIoU in per cent ({robustness.runs[0].protocol.rule}): of each corruption the mean over severity "
        f"{severities} (seed {robustness.seed}), then the mean over the corruptions of a column; "
        f"{len(robustness.corruptions)} were measured, and each weighs alike.",
        "mPC: mean performance under corruption; rPC: mPC in per cent of the clean score (Michaelis et al. 2019).",
    ]
    if robustness.reference is not None:
        reference = robustness.runs[robustness.reference]
        lines.append(
            f"mCE and relative mCE: errors in per cent of those of {reference.name}, less is better (Hendrycks and "
            f"Dietterich 2019); relative ones count what is lost from the clean score, without corruptions of which "
            f"{reference.name} loses less than {LEAST:g} points in the mean."
        )
    if robustness.runs[0].kinds():
        lines.append(
            "Share lost: of the pixels of such objects that were found without corruption, how many fewer are found; "
            "what shows an object is judged before the corruption."
        )
    return lines


def protocols(robustness: Robustness) -> list[tuple[str, str, list[str]]]:
    """Name, clean protocol and what makes it no honest test, of every run."""
    return [(run.name, run.protocol.summary(), run.protocol.warnings()) for run in robustness.runs]


def titled_grids(robustness: Robustness, per_corruption: bool = True) -> list[tuple[str, Grid]]:
    """All tables that have rows, with their titles."""
    grids = [
        ("All frames", summary_grid(robustness)),
        ("Day and night", condition_grid(robustness)),
        ("Objects by what shows them", object_grid(robustness)),
    ]
    if per_corruption:
        grids += [(f"Corruptions of {run.name}", corruption_grid(robustness, run)) for run in robustness.runs]
    return [(title, grid) for title, grid in grids if grid]


def print_robustness(robustness: Robustness, console: Console) -> None:
    """Prints the tables over groups, and what they say."""
    for _, grid in titled_grids(robustness, per_corruption=len(robustness.runs) == 1):
        print_grid(grid, console)
    for line in notes(robustness):
        console.print(Text(line))


def notes(robustness: Robustness) -> list[str]:
    """What stands under the tables."""
    lines = explanations(robustness)
    for name, protocol, warnings in protocols(robustness):
        lines += [f"{name}: {protocol}", *[f"! no honest test: {warning}" for warning in warnings]]
    return lines


def as_markdown(robustness: Robustness) -> str:
    """The tables with their titles, and the notes."""
    parts = [f"## {title}\n\n{markdown.table(grid[0], grid[1:])}" for title, grid in titled_grids(robustness)]
    return "\n\n".join([*parts, _listed(notes(robustness))]) + "\n"


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
