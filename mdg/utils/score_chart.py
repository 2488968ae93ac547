"""A chart of the scores of several configurations and of what sets them apart from the first."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mdg.utils.files import write_bytes
from mdg.utils.visualization import drawable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 130
ROW, HEAD = 0.34, 1.3  # inches
DARK, LIGHT, LINE = "#1f4e8c", "#8fb0d9", "#8c959f"


class Bar(NamedTuple):
    """A configuration: its name, the scores of its runs, and the difference to the first one with its interval."""

    name: str
    values: Sequence[float]
    difference: tuple[float, float, float] | None  # mean, low, high


def score_picture(file: Path, bars: Sequence[Bar], title: str) -> None:
    """Writes the chart of :func:`draw_scores` as PNG, making its folder."""
    write_bytes(file, score_png(bars, title))


def score_png(bars: Sequence[Bar], title: str) -> bytes:
    """The chart of :func:`draw_scores` as the content of a PNG."""
    stream = io.BytesIO()
    draw_scores(bars, title).savefig(stream, format="png", bbox_inches="tight")
    return stream.getvalue()


def draw_scores(bars: Sequence[Bar], title: str) -> Figure:
    """Left the runs (dots) and their mean (line) of every configuration, right the difference to the first one with its
    interval; an interval that holds no zero is drawn dark.

    Args:
        bars: One per configuration, the first on top.
        title: Stands above.
    """
    # Without pyplot: no window system, no global state. Imported here, as it takes a second.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, HEAD + ROW * len(bars)), dpi=DPI, layout="constrained")
    scores, apart = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for place, bar in enumerate(bars):
        mean = sum(bar.values) / len(bar.values)
        scores.plot(bar.values, [place] * len(bar.values), "o", color=LIGHT, markersize=5)
        scores.plot([mean, mean], [place - 0.3, place + 0.3], color=DARK, linewidth=2)
        if bar.difference is not None:
            middle, low, high = bar.difference
            colour = DARK if low > 0 or high < 0 else LINE
            apart.plot([low, high], [place, place], color=colour, linewidth=2)
            apart.plot([middle], [place], "o", color=colour, markersize=5)
    apart.axvline(0, color=LINE, linewidth=0.8)
    for axes in (scores, apart):
        axes.grid(axis="x", color="#d0d7de", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    scores.set_yticks(range(len(bars)), [drawable(bar.name, 40) for bar in bars])
    for label in scores.get_yticklabels():
        label.set_parse_math(False)  # two dollar signs would be a formula
    scores.set_ylim(len(bars) - 0.4, -0.6)
    scores.set_xlabel("runs and their mean")
    apart.set_xlabel(f"minus {drawable(bars[0].name, 30)}, 95 % interval")
    figure.suptitle(drawable(title, 200), fontsize=10)
    return figure
