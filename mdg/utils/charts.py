"""Charts of scores.

Legend: K classes; rows of a confusion matrix are labels, columns predictions.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill, wrap
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from mdg.utils.files import write_bytes
from mdg.utils.visualization import drawable, ink, save_picture, stack

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

CELL = 0.42  # inches; the text of a cell needs it
DPI = 130
LONGEST = 40  # letters of the name of a class
LETTER = 0.12  # inches, at most
EM_LABEL, EM_TITLE = 0.37, 0.65  # scale of OpenCV's font at the size of labels (10 points) and of the title (in pixels)
OVERSAMPLED = 4
SMALLEST = 0.05  # per cent; what would be printed as 0.0 is left out


def confusion_picture(file: Path, counts_KK: np.ndarray, classes: Sequence[str], title: str) -> None:
    """Writes the chart of :func:`draw_confusion` as PNG, making its folder. All scripts that OpenCV knows can be read:
    what the font of matplotlib lacks is drawn by OpenCV."""
    title = drawable(title, 1000)
    known = _known(title)
    stream = io.BytesIO()
    draw_confusion(counts_KK, classes, title if known else "").savefig(stream, format="png", bbox_inches="tight")
    if known:
        write_bytes(file, stream.getvalue())
        return
    chart = cv2.imdecode(np.frombuffer(stream.getvalue(), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert chart is not None  # matplotlib wrote it
    lines = [_on_white(ink(line, EM_TITLE)) for line in wrap(title, chart.shape[1] // 12)]
    save_picture(file, stack([*lines, chart]))


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
    room = max(0.0, max(LETTER * len(drawable(name, LONGEST)) for name in classes) - 1.8)  # for names that are long
    figure = Figure(figsize=(side + room + 2.6, side + room + 2.2), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(share_KK, cmap="Blues", vmin=0, vmax=100)
    label = "% of the labelled pixels of the row"
    figure.colorbar(image, ax=axes, shrink=0.8, aspect=max(20, len(classes)), label=label)
    _name_axes(axes, classes, labelled_K, title)
    _hatch_absent(axes, labelled_K)
    _write_cells(axes, share_KK, size=9 if CELL * len(classes) < 3 else 7)
    return figure


def _name_axes(axes: Axes, classes: Sequence[str], labelled_K: np.ndarray, title: str) -> None:
    names = [drawable(name, LONGEST) for name in classes]
    rows = [name if pixels else f"{name} (absent)" for name, pixels in zip(names, labelled_K, strict=True)]
    places = range(len(classes))
    axes.set_xticks(places, map(_blank, names), rotation=45, ha="left", rotation_mode="anchor")
    axes.set_yticks(places, map(_blank, rows))
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    axes.set_title(fill(drawable(title, 1000), max(40, 5 * len(classes))), fontsize=10)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title):
        text.set_parse_math(False)  # two dollar signs would be a formula
    for place, (name, row) in enumerate(zip(names, rows, strict=True)):
        above, beside = axes.get_xticklabels()[place], axes.get_yticklabels()[place]
        _redraw(axes, name, above, (place, 1), ("data", "axes fraction"), (0, 0), (-3, 3))
        _redraw(axes, row, beside, (0, place), ("axes fraction", "data"), (1, 0.5), (-3, 0))


def _known(text: str) -> bool:
    """Whether the font of matplotlib has all letters. It comes without Chinese, Japanese and Korean."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    letters = get_font(findfont(FontProperties())).get_charmap()
    return all(ord(letter) in letters or letter.isspace() for letter in text)


def _blank(text: str) -> str:
    """Text that takes as much room and that the font can write."""
    return text if _known(text) else "".join(letter if _known(letter) else "W" for letter in text)


def _redraw(
    axes: Axes, name: str, label: Text, place: Any, coordinates: Any, alignment: Any, offset: tuple[float, float]
) -> None:
    """Puts a picture of the name where the font lacks letters of it; the label keeps the room and is not seen."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    if _known(name):
        return
    label.set_alpha(0)
    picture_HW = ink(name, EM_LABEL * OVERSAMPLED)
    if label.get_rotation():
        picture_HW = _turned(picture_HW, label.get_rotation())
    black_HW4 = np.zeros((*picture_HW.shape, 4))
    black_HW4[..., 3] = picture_HW
    image = OffsetImage(black_HW4, zoom=1 / OVERSAMPLED)
    axes.add_artist(
        AnnotationBbox(
            image, place, offset, coordinates, "offset points", box_alignment=alignment, frameon=False, pad=0
        )
    )


def _turned(picture_HW: np.ndarray, degrees: float) -> np.ndarray:
    """Counter-clockwise, in a picture that holds all of it."""
    h, w = picture_HW.shape
    turn = cv2.getRotationMatrix2D((0, 0), degrees, 1)
    corners = turn[:, :2] @ np.array([[0, w, 0, w], [0, 0, h, h]])
    turn[:, 2] = -corners.min(axis=1)
    return cv2.warpAffine(picture_HW, turn, [int(side) for side in np.ceil(np.ptp(corners, axis=1))])


def _on_white(ink_HW: np.ndarray) -> np.ndarray:
    return np.repeat((255 * (1 - ink_HW)).astype(np.uint8)[..., None], 3, axis=2)


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
