"""Videos on the page: frame after frame through the network, into a video that browsers play.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from mdg.data.reading.pairs import align
from mdg.data.reading.thermal import scale_thermal
from mdg.data.reading.video import Half, Video, frame_pairs, halves
from mdg.engine.predictor import Pair, Predictor
from mdg.errors import DataError
from mdg.options.files import PairOptions
from mdg.utils.files import append_line
from mdg.utils.limits import require_within
from mdg.web.inputs import PAGE, Layout, by_name

CODEC, SUFFIX = "VP80", ".webm"  # what OpenCV writes everywhere and every browser plays; its MP4 only players do
SLOWEST = 1.0  # frames a second
THERMAL = "the thermal video"  # in messages on its frames


@dataclass
class Segmented:
    """How far a video has come, and at its end what was made of it.

    Attributes:
        done: Frames.
        total: Frames that there will be, as far as the files tell; None where they do not.
        areas: Mean shares of the classes over the frames.
        files: The video and the areas of every frame; empty until the end.
        note: A sentence on what is missing; empty where nothing is.
    """

    done: int = 0
    total: int | None = None
    areas: dict[str, float] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    note: str = ""


def segment_video(
    predictor: Predictor,
    rgb: str | Path | None,
    thermal: str | Path | None,
    layout: Layout,
    options: PairOptions,
    folder: Path,
    name: str,
    *,
    most: int,
    every: int = 1,
) -> Iterator[Segmented]:
    """Segments a video and says after every frame how far it is; the last time with its files.

    Args:
        predictor: The network.
        rgb, thermal: Two videos that began together, or one alone that shows both cameras.
        layout: Where colour is in one alone.
        options: How frames are prepared.
        folder: Files go there.
        name: What they are called after.
        most: Frames that are taken at most.
        every: Take every so many-th frame.

    Raises:
        DataError: A video that is missing or cannot be used; the message calls it by its name.
    """
    try:
        yield from _segment(predictor, rgb, thermal, layout, options, folder / name, most, every)
    except DataError as error:
        raise DataError(by_name(str(error), rgb, thermal)) from None


def _segment(
    predictor: Predictor,
    rgb: str | Path | None,
    thermal: str | Path | None,
    layout: Layout,
    options: PairOptions,
    place: Path,
    most: int,
    every: int,
) -> Iterator[Segmented]:
    state = Segmented()
    sums_K = np.zeros(len(predictor.classes))
    video, areas = place.with_name(f"{place.name}{SUFFIX}"), place.with_name(f"{place.name}_areas.jsonl")
    with ExitStack() as stack:
        colour, heat = _open(stack, rgb, thermal, layout)
        pairs = frame_pairs(colour, heat) if heat is not None else halves(colour, _half(layout))
        expected = _expected(colour, heat)
        if expected is not None:
            state.total = min(-(-expected // every), most)
        writer: _Webm | None = None
        seen = 0
        for seen, (rgb_HW3, thermal_HW) in enumerate(pairs, 1):
            if (seen - 1) % every:
                continue
            require_within("page_pixels", max(rgb_HW3[..., 0].size, thermal_HW.size), "a frame", DataError)
            pair = _prepared(rgb_HW3, thermal_HW, options)
            prediction = predictor.predict([pair], probabilities=False, divergence=False)[0]
            picture = prediction.overlay(legend=True)
            if writer is None:
                writer = stack.enter_context(_Webm(video, max(colour.rate / every, SLOWEST), picture.shape[:2]))
            writer.write(picture)
            shares = prediction.areas()
            sums_K += list(shares.values())
            append_line(areas, json.dumps({"frame": seen - 1, "areas": {k: round(v, 6) for k, v in shares.items()}}))
            state.done += 1
            if state.done >= most:
                break
            yield state
        state.areas = dict(zip(predictor.classes, (sums_K / max(state.done, 1)).tolist(), strict=True))
        state.note = _note(state, seen, expected, most, every)
    if not state.done:
        raise DataError("the two videos have no frame in common; expected two that began together")
    state.files = [video, areas]
    yield state


def _prepared(rgb_HW3: np.ndarray, thermal_HW: np.ndarray, options: PairOptions) -> Pair:
    scaled_HW = scale_thermal(thermal_HW, options.thermal_scaling, THERMAL, PAGE)
    return align(rgb_HW3, scaled_HW, None, options.align, {"rgb": "RGB", "thermal": THERMAL}, PAGE)


def _half(layout: Layout) -> Half:
    assert layout != "files"
    return layout


def _open(
    stack: ExitStack, rgb: str | Path | None, thermal: str | Path | None, layout: Layout
) -> tuple[Video, Video | None]:
    given = [file for file in (rgb, thermal) if file is not None]
    wanted = 2 if layout == "files" else 1
    if len(given) != wanted:
        expected = (
            "an RGB video and a thermal one, or one that shows both side by side, with the half in which colour is"
            if layout == "files"
            else "one that shows both cameras side by side"
        )
        raise DataError(f"got {len(given)} video{'' if len(given) == 1 else 's'}, expected {expected}")
    first, *rest = (stack.enter_context(Video(file)) for file in given)
    return first, rest[0] if rest else None


def _expected(colour: Video, heat: Video | None) -> int | None:
    """Frames that the pair should have, as the files say."""
    counts = [colour.frames]
    if heat is not None:
        counts.append(None if heat.frames is None else int(heat.frames * colour.rate / heat.rate))
    known = [count for count in counts if count is not None]
    return min(known) if len(known) == len(counts) else None


def _note(state: Segmented, seen: int, expected: int | None, most: int, every: int) -> str:
    if state.done >= most and (expected is None or seen < expected - every):
        return f"The first {state.done} frames were taken; the page takes no more, tools/infer_mm.py does."
    if expected is not None and seen < expected - every - 1:  # the count of some files is one too high
        return f"The video ended after {seen} of {expected} frames; a file may be damaged."
    return ""


class _Webm:
    """Writes frames of one size; a context manager."""

    def __init__(self, file: Path, rate: float, size: tuple[int, int]):
        self.size = size[0] - size[0] % 2, size[1] - size[1] % 2  # encoders want even sides
        file.parent.mkdir(parents=True, exist_ok=True)
        self._writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*CODEC), rate, self.size[::-1])
        if not self._writer.isOpened():
            raise DataError(f"a video of {size[1]}x{size[0]} pixels cannot be written here; this OpenCV has no VP8")

    def __enter__(self) -> _Webm:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.release()

    def write(self, picture: np.ndarray) -> None:
        """Adds ``[H, W, 3]`` uint8, R, G, B."""
        height, width = self.size
        self._writer.write(cv2.cvtColor(picture[:height, :width], cv2.COLOR_RGB2BGR))
