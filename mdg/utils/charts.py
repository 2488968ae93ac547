"""Charts of scores.

Legend: K classes; rows of a confusion matrix are labels, columns predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from mdg.utils.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL = 0.42  # inches; the text of a cell needs it
DPI = 130
SMALLEST = 0.05  # per cent; what would be printed as 0.0 is left out


def confusion_picture(file: Path, counts_KK: np.ndarray, classes: Sequence[str], title: str) -> None:
    """Writes the chart of :func:`draw_confusion` as PNG, making its folder."""
    with replacing(file) as stream:
        draw_confusion(counts_KK, classes, title).savefig(stream, format="png", bbox_inches="tight")


def draw_confusion(counts_KK: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """A confusion matrix, every row in per cent of its labelled pixels.

    A class without a labelled pixel has no row to divide by: it is hatched and marked as absent. Cells below 0.05 %
    are left empty. Readable for 2 to about 40 classes.

    Args:
        counts_KK: Pixels, int64.
        classes: Names of rows and columns.
        title: Stands above it.
    """
    # Without pyplot: no window system, no global state. Imported here, as it takes a second.
    from matplotlib.figure import Figure

    labelled_K = counts_KK.sum(axis=1)
    share_KK = 100 * counts_KK / np.maximum(labelled_K, 1)[:, None]
    side = max(3.0, CELL * len(classes))
    figure = Figure(figsize=(side + 2.6, side + 2.2), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(share_KK, cmap="Blues", vmin=0, vmax=100)
    label = "% of the labelled pixels of the row"
    figure.colorbar(image, ax=axes, shrink=0.8, aspect=max(20, len(classes)), label=label)
    _name_axes(axes, classes, labelled_K, title)
    _hatch_absent(axes, labelled_K)
    _write_cells(axes, share_KK, size=9 if CELL * len(classes) < 3 else 7)
    return figure


def _name_axes(axes: Axes, classes: Sequence[str], labelled_K: np.ndarray, title: str) -> None:
    names = [name if pixels else f"{name} (absent)" for name, pixels in zip(classes, labelled_K, strict=True)]
    places = range(len(classes))
    axes.set_xticks(places, classes, rotation=45, ha="left", rotation_mode="anchor")
    axes.set_yticks(places, names)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    axes.set_title(fill(title, max(40, 5 * len(classes))), fontsize=10)


def _hatch_absent(axes: Axes, labelled_K: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    for row in np.flatnonzero(labelled_K == 0):
        box = Rectangle((-0.5, row - 0.5), len(labelled_K), 1, fill=False, hatch="////", edgecolor="0.75", linewidth=0)
        axes.add_patch(box)


def _write_cells(axes: Axes, share_KK: np.ndarray, size: int) -> None:
    for row, column in np.argwhere(share_KK >= SMALLEST):
        share = share_KK[row, column]
        text = f"{share:.0f}" if share >= 99.95 else f"{share:.1f}"
        colour = "white" if share > 55 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
