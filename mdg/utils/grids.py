"""Tables as rows of cells, titles first, on a terminal; :mod:`mdg.utils.markdown` writes them for papers."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

Grid = Sequence[Sequence[str]]
WIDEST = 100_000  # characters


def print_grid(grid: Grid, console: Console) -> None:
    """Prints a table at its natural width, whatever that of the terminal: a number is never cut."""
    table = Table()
    for place, title in enumerate(grid[0]):
        table.add_column(Text(title), justify="right" if place else "left", no_wrap=True)
    for cells in grid[1:]:
        table.add_row(*map(Text, cells))
    table.width = Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum
    console.print(table)
