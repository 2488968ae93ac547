"""The report as one page that needs nothing but itself; page.html holds markup, style and the sliders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mdg.config.load import flatten
from mdg.engine.compare.comparison import Comparison, compare
from mdg.engine.compare.tables import base_notes, class_grid, row_differences, row_name, score_grid, setting_name
from mdg.engine.run_report import curves
from mdg.engine.run_report.frames import Gallery, ShownFrame
from mdg.engine.run_report.runs import Run, labels
from mdg.engine.run_report.tables import class_rows, confusion_table, groups_of, interval_rows, key_numbers
from mdg.errors import UserError
from mdg.utils.launched import command_line
from mdg.utils.pages import render


def make_page(runs: Sequence[Run], split: str, galleries: Sequence[Gallery], wanted: str | None = None) -> str:
    """The page as HTML; everything that comes from a run is escaped.

    Args:
        runs: One or several.
        split: The split whose classes, confusion matrix and frames are shown.
        galleries: Frames of every run.
        wanted: The split that was asked for; None where it was left to the runs.
    """
    names = labels(runs)
    return render(
        Path(__file__).with_name("page.html"),
        title=names[0] if len(runs) == 1 else f"{len(runs)} runs",
        split=split,
        runs=[
            _run(run, name, split, gallery, wanted) for run, name, gallery in zip(runs, names, galleries, strict=True)
        ],
        comparison=_comparison(runs, names, split) if len(runs) > 1 else None,
        charts=curves.charts_of_runs(runs, names) if len(runs) > 1 else [],
        width=curves.WIDTH,
        height=curves.HEIGHT,
        frame=(curves.LEFT, curves.TOP, curves.WIDTH - curves.RIGHT, curves.HEIGHT - curves.BOTTOM),
        colours=["--all", "--c4", "--c0", "--c2", "--c3", "--c1", "--c5"],
        command=command_line(),
    )


def _run(run: Run, name: str, split: str, gallery: Gallery, wanted: str | None) -> dict[str, Any]:
    result = run.results.get(split)
    missing = [role for role in dict.fromkeys((wanted or "test", split)) if role not in run.results]
    commands = [(file, str(content["command"])) for file, content in run.environments.items() if content.get("command")]
    environment = result.content.get("environment") if result else None
    if isinstance(environment, dict) and environment.get("command"):
        commands.append((f"results of {split}", str(environment["command"])))
    return {
        "name": name,
        "folder": str(run.folder),
        "facts": _facts(run),
        "problems": run.problems,
        "scores": [key_numbers(found) for found in run.results.values()],
        "missing": [(role, run.scoring_command(role)) for role in missing],
        "charts": [*curves.charts_of_run(run), *(curves.reliability_chart(result) if result else [])],
        "groups": groups_of(result) if result else [],
        "classes": class_rows(result) if result else [],
        "confusion": confusion_table(result) if result else None,
        "gallery": {"notes": gallery.notes, "groups": _headed(gallery)},
        "commands": commands,
        "config": run.config,
        "environments": {file: environment_rows(content) for file, content in run.environments.items()},
    }


def _headed(gallery: Gallery) -> list[tuple[str, list[tuple[str, ShownFrame]]]]:
    """Frames under their headings; where each heading has a single frame, all side by side, with what they are."""
    if all(len(frames) == 1 for _, frames in gallery.groups):
        single = [(heading, frame) for heading, frames in gallery.groups for frame in frames]
        return [("", single)] if single else []
    return [(heading, [("", frame) for frame in frames]) for heading, frames in gallery.groups]


def _facts(run: Run) -> list[tuple[str, str]]:
    facts = {"folder": str(run.folder), "seed": "" if run.seed is None else str(run.seed)}
    if run.train:
        last = run.train[-1]
        facts["logged"] = f"{last['step']} steps" + (f", skipped {last['skipped_steps']}" if _skipped(last) else "")
    device = next((str(content.get("device")) for content in run.environments.values() if content.get("device")), "")
    return [(key, value) for key, value in (facts | {"device": device}).items() if value]


def _skipped(record: dict[str, Any]) -> bool:
    return bool(record.get("skipped_steps"))


def environment_rows(content: dict[str, Any]) -> list[tuple[str, str]]:
    """An environment.json as pairs of a dotted key and a text; the command stands elsewhere."""
    told = [(path, value) for path, value in flatten(content).items() if path != "command"]
    return [(path, "none" if value in (None, [], {}) else str(value)) for path, value in told]


def _comparison(runs: Sequence[Run], names: Sequence[str], split: str) -> dict[str, Any]:
    """Scores side by side, as far as the runs have results of the split that can be compared."""
    scored = [run.results[split].file for run in runs if split in run.results]
    without = [name for name, run in zip(names, runs, strict=True) if split not in run.results]
    problem = f"Not in the table, as they have no results of {split}: {', '.join(without)}." if without else ""
    empty: dict[str, Any] = {"table": [], "intervals": [], "classes": [], "settings": [], "rows": [], "notes": []}
    if not scored:
        return {**empty, "problem": problem}
    try:
        comparison = compare(scored, split)
        return {**_tables(comparison), "problem": problem}
    except UserError as error:
        return {**empty, "problem": f"The runs cannot be compared: {error}"}


def _tables(comparison: Comparison) -> dict[str, Any]:
    first = comparison.rows[0]
    return {
        "table": [list(column) for column in zip(*score_grid(comparison), strict=True)],
        "intervals": [
            (setting_name(setting), setting.metrics()[0], interval_rows(comparison, setting))
            for setting in comparison.settings
        ],
        "classes": [class_grid(comparison, setting) for setting in comparison.settings],
        "settings": [
            {"name": setting_name(setting), "lines": setting.lines(), "warnings": setting.protocol.warnings()}
            for setting in comparison.settings
        ],
        "rows": [(row_name(row), row_differences(row, first)) for row in comparison.rows[1:]],
        "notes": base_notes(comparison),
    }
