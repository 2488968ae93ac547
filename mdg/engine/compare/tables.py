"""A comparison as tables for people. The protocols stand under them, by number."""

from __future__ import annotations

import math

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from mdg.engine.compare.comparison import Cell, Comparison, Row, Setting

SHOWN_DIFFERENCES = 12
EXPLANATION = "Per cent; mean ± standard deviation (n - 1) over the seeds of a row."


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
    rows = [
        [row_name(row), seeds_text(row), *[cell_text(row.cell(*column)) for column in comparison.columns()]]
        for row in comparison.rows
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


def notes(comparison: Comparison) -> list[str]:
    """What stands under the tables: the protocols by number, then the files and peculiarities of the rows."""
    lines = [EXPLANATION]
    for setting in comparison.settings:
        first, *rest = setting.lines()
        warnings = [f"! no honest test: {text}" for text in setting.protocol.warnings()]
        lines += [f"{setting_name(setting)} {first}", *[f"    {line}" for line in [*rest, *warnings]]]
    for row in comparison.rows:
        lines.append(f"{row_name(row)}: {', '.join(str(result.file) for result in row.results)}")
        lines += [f"    {line}" for line in _row_differences(row, comparison.rows[0])]
    return lines


def _row_differences(row: Row, first: Row) -> list[str]:
    shown = [
        f"{path}: {own}; {first.letter}: {its}" for path, (its, own) in list(row.differs.items())[:SHOWN_DIFFERENCES]
    ]
    more = len(row.differs) - len(shown)
    return [f"differs from {first.letter} in {line}" for line in shown] + ([f"and {more} more keys"] if more else [])


def grids(comparison: Comparison, per_class: bool) -> list[list[list[str]]]:
    """The main table and, where asked for, one per setting with the IoU per class."""
    apart = comparison.settings if per_class else []
    return [score_grid(comparison), *[class_grid(comparison, setting) for setting in apart]]


def print_comparison(comparison: Comparison, console: Console, per_class: bool = False) -> None:
    """Prints the tables at their natural width, whatever that of the terminal: a score is never cut."""
    for grid in grids(comparison, per_class):
        table = Table()
        for place, title in enumerate(grid[0]):
            table.add_column(Text(_in_lines(title)), justify="right" if place else "left", no_wrap=True)
        for cells in grid[1:]:
            table.add_row(*map(Text, cells))
        table.width = Measurement.get(console, console.options.update(max_width=100_000), table).maximum
        console.print(table)
    for line in notes(comparison):
        console.print(Text(line))


def _in_lines(title: str) -> str:
    # "[1] mIoU (nine classes)" in three lines: columns as narrow as their numbers
    number, _, metric = title.partition(" ")
    return f"{number}\n{metric.replace(' (', chr(10) + '(')}" if number.startswith("[") else title
