"""From the labels of a source to class ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mdg.data.annotations.source import NOTHING, Colour
from mdg.data.datasets.folder import make_palette
from mdg.errors import ConfigError, DataError, first_few, nearest
from mdg.fields import IGNORED, MAX_CLASSES
from mdg.options.folder import IGNORE

USUAL_BACKGROUNDS = ("background", "_background_")
SHOWN = 10


class Scheme:
    """Which class every label becomes.

    Args:
        classes: The classes in the order of their ids, the background among them or not; None takes the labels that
            occur, in the order of the source.
        background: The name of class 0: what nobody has drawn.
        ignore: Labels that become 255; one that is called ``ignore`` always does.
        merge: New names of labels, by the old ones.

    Raises:
        ConfigError: Names twice, the background at another place, a label that is a class and ignored.
    """

    def __init__(
        self,
        classes: Sequence[str] | None = None,
        background: str = "background",
        ignore: Iterable[str] = (),
        merge: Mapping[str, str] | None = None,
    ):
        self.background = background
        self._ignored = {*ignore, IGNORE}
        self._merge = dict(merge or {})
        self.classes: list[str] | None = None
        if classes is not None:
            given = list(classes)
            if background in given[1:]:
                raise ConfigError(
                    f"--classes: got '{background}' behind '{given[0]}', expected the background first; put it there, "
                    "or name another class with --background"
                )
            self._set(given if background in given else [background, *given], "--classes")
        elif background in self._ignored:
            raise ConfigError(f"--background: got '{background}', which is ignored; expected another name")

    def label(self, label: str) -> str:
        """A label by its new name, and one that stands for no object by that of the background."""
        label = self._merge.get(label, label)
        usual = label in USUAL_BACKGROUNDS and (self.classes is None or label not in self.classes)
        return self.background if usual and label not in self._ignored else label

    def settle(self, occurring: Iterable[str], known: Iterable[str]) -> list[str]:
        """Chooses the classes where they are not given, and returns them.

        Args:
            occurring: Labels of shapes, as the source writes them.
            known: Labels in the order of the source; those it does not list follow by their names.

        Raises:
            ConfigError: More classes than there are ids, or nothing but the background.
        """
        if self.classes is None:
            used = {self.label(label) for label in occurring} - self._ignored - {self.background}
            listed = [label for label in dict.fromkeys(map(self.label, known)) if label in used]
            self._set([self.background, *listed, *sorted(used - set(listed))], "the labels")
        assert self.classes is not None
        return self.classes

    def _set(self, classes: list[str], where: str) -> None:
        twice = [name for name, count in Counter(classes).items() if count > 1]
        both = [name for name in classes if name in self._ignored]
        if twice or not all(name.strip() for name in classes):
            raise ConfigError(f"{where}: got {', '.join(classes)}, expected different names, none of them empty")
        if both:
            raise ConfigError(f"{where}: got '{both[0]}', which is ignored, as a class; expected one of the two")
        if not 2 <= len(classes) <= MAX_CLASSES:
            raise ConfigError(
                f"{where}: got {len(classes)} class(es) ({', '.join(classes[:SHOWN])}), expected 2 to {MAX_CLASSES}, "
                "the background and at least one other"
            )
        self.classes = classes

    def require_known(self, where: object, shapes: Mapping[str, int], frames: Mapping[str, int]) -> None:
        """Raises DataError where labels are no class, listing all of them.

        Args:
            where: The annotations, for the message.
            shapes: Number of shapes by label.
            frames: Number of frames by label.
        """
        assert self.classes is not None
        unknown = [label for label in shapes if self._target(label) is None]
        if not unknown:
            return
        unknown.sort(key=lambda label: (-shapes[label], label))
        listed = [f"'{label}' ({shapes[label]} shape(s) in {frames[label]} frame(s))" for label in unknown]
        raise DataError(
            f"{where}: labels that are no class: {first_few(listed, SHOWN)}; classes are {', '.join(self.classes)}."
            f"{nearest(unknown[0], self.classes)} Add them to --classes, or say --merge '{unknown[0]}=CLASS' or "
            f"--ignore '{unknown[0]}'"
        )

    def require_used(self, occurring: Iterable[str]) -> None:
        """Raises ConfigError where --merge or --ignore name a label that nobody has drawn."""
        there = set(occurring)
        after = there | {self._merge.get(label, label) for label in there}
        named = {"--merge": set(self._merge) - there, "--ignore": self._ignored - {IGNORE} - after}
        for option, lost in named.items():
            if lost:
                first = min(lost)
                raise ConfigError(
                    f"{option}: got '{first}', which no shape is labelled with; labels are "
                    f"{', '.join(sorted(there)[:SHOWN]) or 'none'}.{nearest(first, there)}"
                )

    def _target(self, label: str | None) -> int | None:
        assert self.classes is not None
        if label is None or self.label(label) in self._ignored:
            return IGNORED
        name = self.label(label)
        return self.classes.index(name) if name in self.classes else None

    def to_ids(self, labels: Sequence[str | None], index_HW: np.ndarray) -> np.ndarray:
        """[H, W] uint8 class ids out of a plane of labels, all of which are known."""
        targets = [self._target(label) for label in labels]
        assert None not in targets and NOTHING == -1  # the last entry of the table is that of nothing
        return np.array([*targets, 0], np.uint8)[index_HW]

    def palette(self, colours: Mapping[str, Colour | None]) -> list[list[int]]:
        """[R, G, B] per class: those of the source where they are known and differ, else those of PASCAL VOC."""
        assert self.classes is not None
        own: dict[str, Colour] = {}
        for label, colour in colours.items():
            if colour is not None:
                own.setdefault(self.label(label), colour)
        own.setdefault(self.background, (0, 0, 0))
        chosen = [own.get(name) for name in self.classes]
        if None not in chosen and len(set(chosen)) == len(chosen):
            return [list(colour) for colour in chosen if colour is not None]
        return [[int(level) for level in row] for row in make_palette(len(self.classes), None)]
