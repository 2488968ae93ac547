"""Sample frames of a split as small pictures, ready to stand inside a page.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mdg.data.check.splits import SplitReport
from mdg.errors import DataError
from mdg.utils.pictures import jpeg_uri, shown_size
from mdg.utils.visualization import overlay

SPREAD, RARE = 6, 4  # frames spread evenly over the split, and frames for its rarest classes
WIDTH = 360  # px of a picture
QUALITY = 82  # of JPEG


@dataclass(frozen=True)
class Sample:
    """One frame to look at.

    Attributes:
        name, condition: As the data set gives them.
        reasons: Why it was chosen: "most guardrail"; empty for those that are spread evenly.
        classes: Ids of the classes that occur in it.
        pictures: Caption and data URI of each picture.
    """

    name: str
    condition: str | None
    reasons: tuple[str, ...]
    classes: tuple[int, ...]
    pictures: tuple[tuple[str, str], ...]


def make_samples(split: SplitReport) -> list[Sample]:
    """Reads and draws the chosen frames, in the order of the split."""
    samples = []
    for place, reasons in choose_places(split).items():
        try:
            pictures = _draw(split, place)
        except DataError:  # it was readable a minute ago; the report need not fail where it is not any more
            continue
        record = split.records[place]
        classes = tuple(np.flatnonzero(record.class_pixels_K).tolist())
        samples.append(Sample(record.name, split.dataset.condition(place), tuple(reasons), classes, pictures))
    return samples


def choose_places(split: SplitReport) -> dict[int, list[str]]:
    """Indices of the frames to show, ascending, each with the reasons for it.

    Some are spread evenly over the readable frames. For each of the rarest classes comes the frame that shows most of
    it.
    """
    places = [place for place, record in enumerate(split.records) if record.readable]
    if not places:
        return {}
    even = np.linspace(0, len(places) - 1, min(SPREAD, len(places))).round().astype(int)
    chosen: dict[int, list[str]] = {places[index]: [] for index in even}
    for k in _rarest(split):
        best = max(places, key=lambda place: (int(split.records[place].class_pixels_K[k]), -place))
        if split.records[best].class_pixels_K[k]:
            chosen.setdefault(best, []).append(f"most {split.dataset.classes[k]}")
    return dict(sorted(chosen.items()))


def _rarest(split: SplitReport) -> list[int]:
    """Classes that occur, though not in every frame; those in the fewest frames first."""
    frames_K = split.class_frames_K
    occurring = [k for k in range(len(frames_K)) if 0 < frames_K[k] < len(split.records)]
    return sorted(occurring, key=lambda k: (frames_K[k], split.class_pixels_K[k], k))[:RARE]


def _draw(split: SplitReport, place: int) -> tuple[tuple[str, str], ...]:
    frame = split.dataset.read(place)
    rgb_HW3 = _shrink(frame.rgb_HW3, cv2.INTER_AREA)
    pictures = {"RGB": rgb_HW3}
    if "thermal" in split.dataset.cameras:
        pictures["thermal"] = _shrink(frame.thermal_HW, cv2.INTER_AREA)
    # Outlines are drawn at the size of the picture: shrunk ones would fade.
    label_HW = _shrink(frame.label_HW, cv2.INTER_NEAREST)
    pictures["label over RGB"] = overlay(rgb_HW3, label_HW, split.dataset.palette_K3)
    return tuple((caption, jpeg_uri(picture, QUALITY)) for caption, picture in pictures.items())


def _shrink(image: np.ndarray, interpolation: int) -> np.ndarray:
    return cv2.resize(image, shown_size(image, WIDTH)[::-1], interpolation=interpolation)
