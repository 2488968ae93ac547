"""Frames of videos, streams and cameras, in colour and in pairs.

What encoders make of a thermal picture has three channels that are nearly equal; it is taken as grey where the colours
are faint, and refused as false colours where they are not.

Shape suffixes: H, W are height and width in pixels.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from mdg.errors import DataError

logger = logging.getLogger("mdg.data")
SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".mjpeg", ".y4m")
STREAM = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
FAINT = 6.0  # levels: mean distance of the channels of what is meant to be grey, behind an encoder
DEFAULT_RATE = 25.0  # frames a second, where a source does not say
Half = Literal["left", "right"]


def is_video(source: str | Path) -> bool:
    """Whether it is a video by its suffix, the address of a stream, or the number of a camera."""
    text = str(source)
    return text.isdigit() or bool(STREAM.match(text)) or text.lower().endswith(SUFFIXES)


def is_live(source: str | Path) -> bool:
    """Whether it has no end of its own: a stream or a camera."""
    return str(source).isdigit() or bool(STREAM.match(str(source)))


class Video:
    """One video, stream or camera, read once from its beginning; a context manager.

    Args:
        source: A file, an address (``rtsp://...``) or the number of a camera.

    Attributes:
        rate: Frames a second.
        frames: How many there are, as the file says; None where nobody knows.

    Raises:
        DataError: It cannot be opened.
    """

    def __init__(self, source: str | Path):
        text = str(source)
        self.source, self.live = text, is_live(source)
        if not self.live and not Path(text).is_file():
            raise DataError(
                f"{text}: no such video; expected a file, the address of a stream or the number of a camera"
            )
        self._capture = cv2.VideoCapture(int(text) if text.isdigit() else text)
        if not self._capture.isOpened():
            advice = (
                "is it connected, free, and may this user read it?"
                if text.isdigit()
                else "check the address and the login"
                if self.live
                else "it is damaged, or of a kind that OpenCV does not read: convert it to MP4"
            )
            raise DataError(f"{'camera ' if text.isdigit() else ''}{text}: cannot be opened as a video; {advice}")
        rate, count = self._capture.get(cv2.CAP_PROP_FPS), self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.rate = float(rate) if 0 < rate < 1000 else DEFAULT_RATE
        self.frames = int(count) if not self.live and count > 0 else None

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Frames ``[H, W, 3]`` uint8 in the order R, G, B.

        Raises:
            DataError: A file without a single frame.
        """
        read = 0
        while True:
            there, image = self._capture.read()
            if not there:
                break
            read += 1
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
        if self.frames is not None and 0 < read < self.frames - 1:  # some count one that is not there
            logger.warning("%s: ended after %d of %d frames; it may be damaged", self.source, read, self.frames)
        if read == 0:
            raise DataError(f"{self.source}: no frame can be read from it; it is damaged, or the camera gives none")


def frame_pairs(rgb: Video, thermal: Video, delay: float = 0.0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """RGB frames ``[H, W, 3]`` with the thermal frame ``[H, W]`` nearest in time, to the end of the shorter video.

    Args:
        rgb, thermal: They began together, ``delay`` apart.
        delay: Seconds by which the thermal video began later.

    Raises:
        DataError: Thermal in false colours.
    """
    if rgb.live and thermal.live:
        for left, right in zip(rgb, thermal, strict=False):
            yield left, grey(right, thermal.source)
        return
    frames = iter(thermal)
    latest, place = next(frames, None), 0
    for number, image in enumerate(rgb):
        wanted = round((number / rgb.rate - delay) * thermal.rate)
        while latest is not None and place < wanted:
            latest, place = next(frames, None), place + 1
        if latest is None:
            return
        if wanted >= 0:
            yield image, grey(latest, thermal.source)


def halves(video: Video, rgb: Half) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of a video that shows both cameras beside each other; ``rgb`` says where colour is.

    Raises:
        DataError: An odd width, or thermal in false colours.
    """
    for image in video:
        yield split_halves(image, rgb, video.source)


def split_halves(image_HW3: np.ndarray, rgb: Half, source: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """The colour ``[H, W/2, 3]`` and the thermal ``[H, W/2]`` picture of a frame that shows both beside each other.

    Raises:
        DataError: An odd width, or thermal in false colours.
    """
    width = image_HW3.shape[1]
    if width % 2:
        raise DataError(f"{source}: {width} pixels wide, expected an even width, one half for each camera")
    left, right = image_HW3[:, : width // 2], image_HW3[:, width // 2 :]
    colour, heat, side = (left, right, "right") if rgb == "left" else (right, left, "left")
    where = f"{source}, the {side} half (colour was said to be in the {rgb} one)"
    return np.ascontiguousarray(colour), grey(heat, where)


def grey(image_HW3: np.ndarray, source: str) -> np.ndarray:
    """One channel ``[H, W]`` of a picture whose colours are faint.

    Raises:
        DataError: They are not.
    """
    channels = image_HW3.astype(np.int16)
    spread = float((channels.max(axis=2) - channels.min(axis=2)).mean())
    if spread > FAINT:
        raise DataError(
            f"{source}: its colours lie {spread:.0f} levels apart, expected thermal in grey. False colours cannot be "
            "turned back into temperatures: record in grey ('white hot')"
        )
    return cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY)


class VideoFile:
    """Writes frames of one size as MP4; a context manager. The file is there, whole, when the block has ended.

    Args:
        file: ``.mp4``.
        rate: Frames a second.
        size: [height, width] in pixels.

    Raises:
        DataError: It cannot be written.
    """

    def __init__(self, file: Path, rate: float, size: tuple[int, int]):
        self.file, self.size = file, size
        self._partial = file.with_name(f".{file.stem}.partial{file.suffix}")
        file.parent.mkdir(parents=True, exist_ok=True)
        self._writer = cv2.VideoWriter(str(self._partial), cv2.VideoWriter.fourcc(*"mp4v"), rate, size[::-1])
        if not self._writer.isOpened():
            raise DataError(f"{file}: a video of {size[1]}x{size[0]} pixels cannot be written here")

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.release()
        if self._partial.exists():
            self._partial.replace(self.file)

    def write(self, image_HW3: np.ndarray) -> None:
        """Adds a frame ``[H, W, 3]`` uint8 in the order R, G, B."""
        assert image_HW3.shape[:2] == self.size, (image_HW3.shape, self.size)
        self._writer.write(cv2.cvtColor(image_HW3, cv2.COLOR_RGB2BGR))
