"""A comparison as tables for people, and as Markdown, CSV and JSON; the protocols go with every one of them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from mdg.config.load import ABSENT
from mdg.engine.compare.bootstrap import DRAWS
from mdg.engine.compare.comparison import Cell, Comparison, Row, Setting
from mdg.utils import markdown
from mdg.utils.grids import print_grid

SHOWN_DIFFERENCES = 12
EXPLANATION = "Per cent; mean ± standard deviation (n - 1) over the seeds of a row."
INTERVALS = (
    f"Intervals: paired bootstrap over the images, {DRAWS} draws. They say nothing of other seeds; the deviation over "
    "seeds does."
)


def cell_text(cell: Cell | None) -> str:
    """ "61.70 ± 0.21", "61.70" for one seed, blank where there is no such score."""
    if cell is None:
        return ""
    mean = "NaN" if math.isnan(cell.mean) else f"{cell.mean:.2f}"
    return mean if cell.std is None or math.isnan(cell.std) else f"{mean} ± {cell.std:.2f}"


def setting_name(setting: Setting) -> str:
    """ "[1]", with an exclamation mark where it is no honest test."""
    return f"[{setting.number}]" + ("!" if setting.protocol.warnings() else "")


def row_name(row: Row) -> str:
    """Letter and name."""
    return f"{row.letter} {row.name}"


def score_grid(comparison: Comparison) -> list[list[str]]:
    """Header and rows of the main table."""
    header = ["run", "seeds", *[f"{setting_name(setting)} {metric}" for setting, metric in comparison.columns()]]
    grid = [header]
    for row in comparison.rows:
        cells = [cell_text(row.cell(*column)) for column in comparison.columns()]
        grid.append([row_name(row), seeds_text(row), *cells])
    return grid


def difference_grid(comparison: Comparison) -> list[list[str]]:
    """Header and rows of the differences to the first row; empty where none is known."""
    found = {
        row.letter: [comparison.difference(row, setting) for setting in comparison.settings] for row in comparison.rows
    }
    if not any(any(differences) for differences in found.values()):
        return []
    first, names = comparison.rows[0], map(setting_name, comparison.settings)
    header = [f"mIoU minus that of {first.letter}", *[f"{name} difference [95 % interval]" for name in names]]
    rows = [
        [row_name(row), *[str(difference or "") for difference in found[row.letter]]] for row in comparison.rows[1:]
    ]
    return [header, *rows]


def class_grid(comparison: Comparison, setting: Setting) -> list[list[str]]:
    """Header and rows of the IoU per class in one setting; runs are columns."""
    rows = [row for row in comparison.rows if row.of(setting)]
    header = [f"{setting_name(setting)} IoU", *map(row_name, rows)]
    classes = setting.protocol.classes
    return [header, *[[name, *[cell_text(row.cell(setting, f"IoU {name}")) for row in rows]] for name in classes]]


def seeds_text(row: Row) -> str:
    """ "1, 2, 3"."""
    return ", ".join(map(str, row.seeds))


def base_notes(comparison: Comparison) -> list[str]:
    """What the numbers are."""
    return [EXPLANATION, *([INTERVALS] if difference_grid(comparison) else [])]


def notes(comparison: Comparison) -> list[str]:
    """What stands under the tables: the protocols by number, then the files and peculiarities of the rows."""
    lines = base_notes(comparison)
    for setting in comparison.settings:
        first, *rest = setting.lines()
        warnings = [f"! no honest test: {text}" for text in setting.protocol.warnings()]
        lines += [f"{setting_name(setting)} {first}", *[f"    {line}" for line in [*rest, *warnings]]]
    for row in comparison.rows:
        lines.append(f"{row_name(row)}: {', '.join(str(result.file) for result in row.results)}")
        lines += [f"    {line}" for line in row_differences(row, comparison.rows[0])]
    return lines


def row_differences(row: Row, first: Row) -> list[str]:
    """In which keys of its configuration a row does not equal the first one."""
    differs = fold(row.differs)
    shown = [f"{path}: {own}; {first.letter}: {its}" for path, (its, own) in list(differs.items())[:SHOWN_DIFFERENCES]]
    more = len(differs) - len(shown)
    return [f"differs from {first.letter} in {line}" for line in shown] + ([f"and {more} more keys"] if more else [])


def fold(differs: Mapping[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    """Differences by path, with one entry where one configuration has a value (such as null) and the other a mapping or
    a list: the type of that, which says more than its keys one by one."""
    replaced = {path for path, pair in differs.items() if ABSENT in pair and _keys_below(path, differs)}
    folded: dict[str, tuple[Any, Any]] = {}
    for path, (its, own) in differs.items():
        if path in replaced:
            inside = differs.get(f"{path}.type", ("(...)", "(...)"))
            folded[path] = (inside[0] if its == ABSENT else its, inside[1] if own == ABSENT else own)
        elif not any(path.startswith(f"{above}.") for above in replaced):
            folded[path] = (its, own)
    return folded


def _keys_below(path: str, paths: Iterable[str]) -> bool:
    return any(other.startswith(f"{path}.") for other in paths)


def grids(comparison: Comparison, per_class: bool) -> list[list[list[str]]]:
    """The main table and, where asked for, one per setting with the IoU per class."""
    apart = comparison.settings if per_class else []
    differences = [grid for grid in [difference_grid(comparison)] if grid]
    return [score_grid(comparison), *differences, *[class_grid(comparison, setting) for setting in apart]]


def print_comparison(comparison: Comparison, console: Console, per_class: bool = False) -> None:
    """Prints the tables and the notes."""
    for grid in grids(comparison, per_class):
        print_grid([[_in_lines(title) for title in grid[0]], *grid[1:]], console)
    for line in notes(comparison):
        console.print(Text(line))


def _in_lines(title: str) -> str:
    # "[1] mIoU (nine classes)" in three lines: columns as narrow as their numbers
    number, _, metric = title.partition(" ")
    return f"{number}\n{metric.replace(' (', chr(10) + '(')}" if number.startswith("[") else title


def as_markdown(comparison: Comparison, per_class: bool = False) -> str:
    """The tables and the notes as Markdown."""
    tables = [markdown.table(grid[0], grid[1:]) for grid in grids(comparison, per_class)]
    listed = [f"    - {line.strip()}" if line.startswith(" ") else f"- {line}" for line in notes(comparison)]
    return "\n\n".join([*tables, "\n".join(listed)]) + "\n"


def as_csv(comparison: Comparison, per_class: bool = False) -> str:
    """One line per row, mean and standard deviation in columns of their own; the notes follow after ``#``."""
    columns = comparison.columns(per_class)
    titles = [f"[{setting.number}] {metric}" for setting, metric in columns]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["run", "seeds", *[part for title in titles for part in (title, f"{title} std")]])
    for row in comparison.rows:
        parts = [part for column in columns for part in _csv_parts(row.cell(*column))]
        writer.writerow([row_name(row), seeds_text(row), *parts])
    return stream.getvalue() + "".join(f"# {line}\n" for line in notes(comparison))


def _csv_parts(cell: Cell | None) -> tuple[str, str]:
    if cell is None:
        return "", ""
    return _csv_number(cell.mean), _csv_number(cell.std)


def _csv_number(value: float | None) -> str:
    if value is None:
        return ""
    return "NaN" if math.isnan(value) else f"{value:.6f}"


def as_tree(comparison: Comparison, per_class: bool = False) -> dict[str, Any]:
    """The comparison as plain values, for JSON."""
    return {
        "settings": [_setting_tree(setting) for setting in comparison.settings],
        "rows": [_row_tree(row, comparison.settings, per_class) for row in comparison.rows],
    }


def _setting_tree(setting: Setting) -> dict[str, Any]:
    protocol = {key: value for key, value in setting.protocol.as_dict().items() if key != "epoch"}
    return {
        "number": setting.number,
        "protocol": protocol,
        "rules": dict(setting.example.rule_definitions),
        "differs": setting.differs,
    }


def _row_tree(row: Row, settings: Sequence[Setting], per_class: bool) -> dict[str, Any]:
    scores = {
        str(setting.number): {metric: vars(row.cell(setting, metric)) for metric in setting.metrics(per_class)}
        for setting in settings
        if row.of(setting)
    }
    return {
        "letter": row.letter,
        "name": row.name,
        "seeds": row.seeds,
        "files": [str(result.file) for result in row.results],
        "differs": {path: {"first": its, "here": own} for path, (its, own) in row.differs.items()},
        "scores": scores,
    }
