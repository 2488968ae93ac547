"""What every kind of annotation is once it is read: frames by name, and for each of them a plane of labels.

Legend: H, W are the height and width of a frame in pixels; index_HW holds places in a list of labels, NOTHING where
nothing was drawn.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import ClassVar, NamedTuple

import numpy as np

from mdg.data.reading.files import ALL_SUFFIXES, without_suffix
from mdg.data.reading.names import same
from mdg.errors import DataError
from mdg.utils.limits import require_within

NOTHING = -1
MOST_LABELS = 32767  # index_HW is int16
Colour = tuple[int, int, int]
Size = tuple[int, int]


class Drawn(NamedTuple):
    """What somebody has drawn on one frame.

    Attributes:
        labels: Names as the source writes them; None stands for what is ignored whatever it is.
        index_HW: int16, place in ``labels`` of every pixel, :data:`NOTHING` where nothing was drawn.
        shapes: How many shapes (masks: one a frame) each label has.
        warnings: What was left out, with file and place.
    """

    labels: tuple[str | None, ...]
    index_HW: np.ndarray
    shapes: Counter[str]
    warnings: tuple[str, ...]


class Source(ABC):
    """Annotations of a set of frames. Subclasses fill the attributes and write the three methods.

    Attributes:
        kind: The format, for people.
        names: The frames, each once, in order; a name may hold folders.
        known: Labels in the order of the source, with their colours where it has some; formats without a list of
            labels leave it empty.
        empty: Frames that the source names and on which nothing is drawn, so that nobody knows whether anybody looked.
        splits: Split of a frame, for sources that lie in folders ``train``, ``valid`` and ``test``.
    """

    kind: ClassVar[str]

    def __init__(self) -> None:
        self.names: list[str] = []
        self.known: dict[str, Colour | None] = {}
        self.empty: set[str] = set()
        self.splits: dict[str, str] = {}

    @abstractmethod
    def file(self, name: str) -> Path:
        """The file that holds a frame's annotation, for messages."""

    @abstractmethod
    def size(self, name: str) -> Size | None:
        """(H, W) as the source states it; None where only the image, or the mask itself, can tell."""

    @abstractmethod
    def read(self, name: str, size: Size | None = None) -> Drawn:
        """Draws one frame.

        Args:
            name: One of ``names``.
            size: (H, W), needed where the source does not state it.

        Raises:
            DataError: A damaged or impossible annotation; the message names the file and the place in it.
        """


class FileSource(Source):
    """Frames that have a file each, which alone tells their size, unless a subclass knows more."""

    def __init__(self) -> None:
        super().__init__()
        self._files: dict[str, Path] = {}

    def file(self, name: str) -> Path:
        return self._files[name]

    def size(self, name: str) -> Size | None:
        return None


def frame_name(text: str, where: object) -> str:
    """The name of a frame out of a path that a source holds: without suffix, with ``/`` between folders.

    Raises:
        DataError: A path that leads outside, for files of that name are written.
    """
    path = PurePosixPath(same(text.replace("\\", "/")))
    if path.is_absolute() or ".." in path.parts or not path.parts or re.match(r"[A-Za-z]:|.*[\x00-\x1f]", str(path)):
        raise DataError(f"{where}: got the name {text!r}, expected that of an image below one folder; rename it there")
    return without_suffix(str(path), ALL_SUFFIXES)


def check_size(height: object, width: object, where: object) -> Size:
    """(H, W) as whole numbers within the limit of an image; raises DataError."""
    for side in (height, width):
        if isinstance(side, bool) or not isinstance(side, int) or side < 1:
            raise DataError(f"{where}: got height {height!r} and width {width!r}, expected whole numbers from 1 up")
    assert isinstance(height, int) and isinstance(width, int)
    require_within("image_pixels", height * width, where, DataError)
    return height, width


def blank(size: Size) -> np.ndarray:
    """[H, W] int16 on which nothing is drawn."""
    return np.full(size, NOTHING, np.int16)


def require_once(files: Mapping[str, Path], name: str, file: Path) -> None:
    """Raises DataError where a frame has been found before."""
    if name in files:
        raise DataError(
            f"{file}: a second annotation of the frame '{name}', which {files[name]} has too; expected each frame once "
            "(augmented copies of a frame are no labels of it: export without augmentation)"
        )


def label_text(value: object, where: object) -> str:
    """A label as text without blanks around it; raises DataError."""
    text = str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if not text:
        raise DataError(f"{where}: got the label {value!r}, expected a name")
    return text
