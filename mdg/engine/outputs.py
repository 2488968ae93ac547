"""What is written for predictions: masks, pictures, numbers, shapes, videos.

Legend: H W image size, K classes.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mdg.data.annotations.write import CocoWriter, CvatWriter, Drawing, write_labelme
from mdg.data.reading.video import VideoFile
from mdg.engine.predictor import Prediction
from mdg.errors import ConfigError, nearest
from mdg.utils import visualization as vis
from mdg.utils.files import append_line, explained, write_bytes, write_text

SMALLEST = 16  # pixels: smaller regions become what lies around them in shapes that people shall correct
PROBABLE = {"probabilities", "uncertainty", "entropy"}  # need more than the mask
DEFAULT = ("mask", "overlay")
DEFAULT_OF_VIDEOS = ("video", "areas")


def require_kinds(kinds: Sequence[str]) -> None:
    """Raises ConfigError where a kind of output is not known."""
    known = [*OF_A_PAIR, *OF_ALL]
    for kind in kinds:
        if kind not in known:
            raise ConfigError(f"--save {kind}: expected some of {', '.join(known)}.{nearest(kind, known)}")
    if not kinds:
        raise ConfigError(f"--save: expected some of {', '.join(known)}")


def _mask(file: Path, prediction: Prediction, image: Path | None) -> None:
    vis.save_picture(file, prediction.mask)


def _overlay(file: Path, prediction: Prediction, image: Path | None) -> None:
    vis.save_picture(file, prediction.overlay(legend=True))


def _colour(file: Path, prediction: Prediction, image: Path | None) -> None:
    vis.save_picture(file, prediction.coloured())


def _divergence(file: Path, prediction: Prediction, image: Path | None) -> None:
    if not prediction.divergence:
        raise ConfigError("--save divergence: this network does not measure where the modalities diverge")
    vis.save_picture(file, divergence_picture(prediction))


def _entropy(file: Path, prediction: Prediction, image: Path | None) -> None:
    vis.save_picture(file, vis.heatmap(prediction.entropy(), 0.0, 1.0))


def _probabilities(file: Path, prediction: Prediction, image: Path | None) -> None:
    assert prediction.probabilities is not None
    stream = io.BytesIO()
    halves = prediction.probabilities.astype(np.float16)
    np.savez_compressed(stream, probabilities=halves, classes=np.array(prediction.classes))
    write_bytes(file, stream.getvalue())


def _labelme(file: Path, prediction: Prediction, image: Path | None) -> None:
    if image is None:
        raise ConfigError("--save labelme: it shows image files, and these pairs are none; save `mask` instead")
    shown = os.path.relpath(image.resolve(), file.parent.resolve())
    write_labelme(file, prediction.mask, Path(shown).as_posix(), _drawing(prediction))


# By what a user calls them: the ending of the file of a pair and what writes it, or the name of the one file for all.
OF_A_PAIR: dict[str, tuple[str, Callable[[Path, Prediction, Path | None], None]]] = {
    "overlay": ("_overlay.png", _overlay),
    "colour": ("_colour.png", _colour),
    "divergence": ("_divergence.png", _divergence),
    "probabilities": ("_probabilities.npz", _probabilities),
    "entropy": ("_entropy.png", _entropy),
    "labelme": (".json", _labelme),
    "mask": ("_mask.png", _mask),  # last: where it is, the pair is done
}
OF_ALL = {
    "areas": "areas.jsonl",
    "uncertainty": "uncertainty.csv",
    "coco": "coco.json",
    "cvat": "cvat.xml",
    "video": ".mp4",
}
SHAPES: dict[str, Callable[[Drawing], CocoWriter | CvatWriter]] = {"coco": CocoWriter, "cvat": CvatWriter}


class Outputs:
    """The files of a run of predictions; a context manager.

    Args:
        folder: Where to.
        kinds: Some of :data:`OF_A_PAIR` and :data:`OF_ALL`.
        title: Name of the video.
        rate: Its frames a second.
    """

    def __init__(self, folder: Path, kinds: Sequence[str], *, title: str = "predictions", rate: float = 25.0):
        require_kinds(kinds)
        self.folder, self.kinds, self.rate = folder, tuple(kinds), rate
        names = {**OF_ALL, "video": f"{title}{OF_ALL['video']}"}
        self.of_all = {kind: folder / name for kind, name in names.items() if kind in kinds}
        self._video: VideoFile | None = None
        self._shapes: dict[str, CocoWriter | CvatWriter] = {}
        self._uncertainties: dict[str, float] = {}

    def __enter__(self) -> Outputs:
        return self

    def __exit__(self, *_: object) -> None:
        if self._video is not None:
            with explained(self.of_all["video"]):
                self._video.__exit__()
        for kind, shapes in self._shapes.items():
            shapes.write(self.of_all[kind])
        if self._uncertainties:
            ranked = sorted(self._uncertainties.items(), key=lambda item: -item[1])
            text = io.StringIO()
            rows = [["name", "uncertainty"], *([name, f"{value:.6f}"] for name, value in ranked)]
            csv.writer(text, lineterminator="\n").writerows(rows)
            write_text(self.of_all["uncertainty"], text.getvalue())

    def files(self, name: str) -> list[Path]:
        """The files of a pair, in the order in which they are written."""
        return [self.folder / f"{name}{ending}" for kind, (ending, _) in OF_A_PAIR.items() if kind in self.kinds]

    @property
    def common(self) -> list[Path]:
        """The files of all pairs together."""
        return list(self.of_all.values())

    def write(self, name: str, prediction: Prediction, image: Path | None = None) -> None:
        """Writes everything of one pair; ``image`` is its RGB file, where it has one.

        Raises:
            MachineError: No room. UserError: a place that cannot be written.
        """
        for kind, (ending, write) in OF_A_PAIR.items():
            if kind in self.kinds:
                write(self.folder / f"{name}{ending}", prediction, image)
        if "areas" in self.kinds:
            shares = {label: round(share, 6) for label, share in prediction.areas().items()}
            with explained(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            told: dict[str, object] = {"name": name, "areas": shares}
            if prediction.unlikeness is not None:
                told["unlikeness"] = round(prediction.unlikeness, 3)
            append_line(self.of_all["areas"], json.dumps(told, ensure_ascii=False))
        if "uncertainty" in self.kinds:
            self._uncertainties[name] = prediction.uncertainty()
        for kind, writer in SHAPES.items():
            if kind in self.kinds:
                if kind not in self._shapes:
                    self._shapes[kind] = writer(_drawing(prediction))
                self._shapes[kind].add(prediction.mask, f"{name}{image.suffix if image is not None else '.png'}")
        if "video" in self.kinds:
            self._frame(prediction)

    def _frame(self, prediction: Prediction) -> None:
        picture = prediction.overlay(legend=True)
        height, width = (side - side % 2 for side in picture.shape[:2])  # encoders want even sides
        if self._video is None:
            with explained(self.of_all["video"]):
                self._video = VideoFile(self.of_all["video"], self.rate, (height, width))
        height, width = self._video.size
        if picture.shape[0] < height or picture.shape[1] < width:
            raise ConfigError(
                f"--save video: a frame of {picture.shape[1]}x{picture.shape[0]} pixels behind others of "
                f"{width}x{height}; frames of one size make a video"
            )
        self._video.write(picture[:height, :width])


def _drawing(prediction: Prediction) -> Drawing:
    return Drawing(prediction.classes, palette=prediction.palette.tolist(), min_pixels=SMALLEST)


def divergence_picture(prediction: Prediction) -> np.ndarray:
    """The divergence of stage 1 at the size of the image in false colours, ``[H, W, 3]`` uint8; dark is alike."""
    divergence = vis.enlarged(prediction.divergence[0], prediction.mask.shape)
    low, high = np.percentile(divergence, (1, 99))
    return vis.heatmap(divergence, float(low), float(high))
