"""One scene under every corruption, and what each network says of it.

Legend: H W image size, 3: R, G, B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from mdg.data import RGBTDataset
from mdg.data.base import Frame
from mdg.data.corruptions import Corruption
from mdg.engine.robustness.cells import Task
from mdg.engine.robustness.measure import Session, Subject
from mdg.errors import ConfigError, nearest
from mdg.utils.pictures import Picture, class_map, css_colour, photograph, shown_size
from mdg.utils.visualization import colorize

WIDTH = 320  # px of a picture, at most
QUALITY = 80  # of JPEG


@dataclass
class Scene:
    """A frame as it is, and under every corruption.

    Attributes:
        name: Of the frame.
        size: Height and width of the pictures.
        classes: Name and colour of the classes that are seen somewhere.
        clean: RGB, thermal, label and predictions.
        corrupted: Per corruption (by name) its severities with the image of the camera and the predictions.
    """

    name: str
    size: tuple[int, int]
    classes: list[tuple[str, str]] = field(default_factory=list)
    clean: list[Picture] = field(default_factory=list)
    corrupted: dict[str, list[tuple[float, list[Picture]]]] = field(default_factory=dict)


class Painter:
    """Collects the looks at a scene, one network after the other.

    Args:
        subject: Whose data set has the frame.
        corruptions, severities: What is shown.
        seed: Of the corruptions.
        name: The frame; None takes that of :func:`richest`.

    Raises:
        ConfigError: No such frame.
    """

    def __init__(
        self,
        subject: Subject,
        corruptions: Sequence[Corruption],
        severities: Sequence[float],
        seed: int,
        name: str | None = None,
    ):
        self.seed, self.tasks = seed, [Task(one, severity) for one in corruptions for severity in severities]
        self.dataset = subject.dataset
        self.index = index_of(self.dataset, name) if name is not None else richest(self.dataset)
        frame = self.dataset[self.index]
        self.scene = Scene(frame.name, shown_size(frame.label_HW, WIDTH))
        self._seen = set(np.unique(frame.label_HW).tolist())
        self.scene.clean = [
            self._image(frame, "rgb"),
            self._image(frame, "thermal"),
            self._classes("label", frame.label_HW),
        ]

    def add(self, session: Session) -> None:
        """Adds what a network says."""
        self.scene.clean.append(self._prediction(session, Task(None, 0)))
        for task in self.tasks:
            assert task.corruption is not None
            shown = self.scene.corrupted.setdefault(task.corruption.name, [])
            looks = next((looks for severity, looks in shown if severity == task.severity), None)
            if looks is None:
                frame, camera = session.dataset(task, self.seed)[self.index], task.corruption.camera
                looks = [self._image(frame, camera)]
                shown.append((task.severity, looks))
            looks.append(self._prediction(session, task))

    def finish(self) -> Scene:
        """The scene with the classes that are seen in it."""
        named = enumerate(zip(self.dataset.classes, self.dataset.palette_K3, strict=True))
        self.scene.classes = [(name, css_colour(colour)) for k, (name, colour) in named if k in self._seen]
        return self.scene

    def _prediction(self, session: Session, task: Task) -> Picture:
        mask_HW = session.predict(session.dataset(task, self.seed), self.index)
        self._seen |= set(np.unique(mask_HW).tolist())
        return self._classes(session.subject.name, mask_HW)

    def _image(self, frame: Frame, camera: str) -> Picture:
        title, image = ("RGB", frame.rgb_HW3) if camera == "rgb" else (camera, frame.thermal_HW)
        return photograph(title, cv2.resize(image, self.scene.size[::-1], interpolation=cv2.INTER_AREA), QUALITY)

    def _classes(self, title: str, ids_HW: np.ndarray) -> Picture:
        small = cv2.resize(ids_HW, self.scene.size[::-1], interpolation=cv2.INTER_NEAREST)
        return class_map(title, colorize(small, self.dataset.palette_K3))


def index_of(dataset: RGBTDataset, name: str) -> int:
    """The place of a frame; raises ConfigError where there is none of that name."""
    if name not in dataset.names:
        raise ConfigError(
            f"--scene {name}: {dataset.dataset_name} {dataset.split_label} has no such frame among the "
            f"{len(dataset)} that are scored.{nearest(name, dataset.names)}"
        )
    return dataset.names.index(name)


def richest(dataset: RGBTDataset, looked_at: int = 64) -> int:
    """The first of the frames with the most classes in their label, among the first ``looked_at``; by day where one is,
    as a picture of the night shows little of what is done to it."""
    places = range(min(looked_at, len(dataset)))
    by_day = [index for index in places if dataset.condition(index) != "night"] or list(places)
    return max(by_day, key=lambda index: len(np.unique(dataset[index].label_HW)))
