"""What is written for predictions: masks, pictures, numbers, videos.

Legend: H W image size, K classes.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mdg.data.annotations.write import CocoWriter, CvatWriter, Drawing, write_labelme
from mdg.data.reading.video import VideoFile
from mdg.engine.predictor import Prediction
from mdg.errors import ConfigError, nearest
from mdg.utils import visualization as vis
from mdg.utils.files import append_line, explained, write_bytes, write_text

# By what a user calls them: the ending of the file of a pair, or of the one file for all.
OF_A_PAIR = {
    "overlay": "_overlay.png",
    "colour": "_colour.png",
    "divergence": "_divergence.png",
    "probabilities": "_probabilities.npz",
    "labelme": ".json",
    "mask": "_mask.png",  # last: where it is, the pair is done
}
OF_ALL = {
    "areas": "areas.jsonl",
    "uncertainty": "uncertainty.csv",
    "coco": "coco.json",
    "cvat": "cvat.xml",
    "video": ".mp4",
}
PROBABLE = {"probabilities", "uncertainty"}  # need more than the mask
SMALLEST = 16  # pixels: smaller regions become what lies around them in shapes that people shall correct
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
        self.video_file = folder / f"{title}{OF_ALL['video']}"
        self.areas_file = folder / OF_ALL["areas"]
        self._video: VideoFile | None = None
        self._coco: CocoWriter | None = None
        self._cvat: CvatWriter | None = None
        self._entropies: dict[str, float] = {}

    def __enter__(self) -> Outputs:
        return self

    def __exit__(self, *_: object) -> None:
        if self._video is not None:
            with explained(self.video_file):
                self._video.__exit__()
        if self._coco is not None:
            self._coco.write(self.folder / OF_ALL["coco"])
        if self._cvat is not None:
            self._cvat.write(self.folder / OF_ALL["cvat"])
        if self._entropies:
            ranked = sorted(self._entropies.items(), key=lambda item: -item[1])
            lines = ["name,uncertainty", *(f"{_in_csv(name)},{entropy:.6f}" for name, entropy in ranked)]
            write_text(self.folder / OF_ALL["uncertainty"], "\n".join(lines) + "\n")

    def files(self, name: str) -> list[Path]:
        """The files of a pair, in the order in which they are written."""
        return [self.folder / f"{name}{ending}" for kind, ending in OF_A_PAIR.items() if kind in self.kinds]

    @property
    def common(self) -> list[Path]:
        """The files of all pairs together."""
        files = {kind: self.folder / name for kind, name in OF_ALL.items()} | {"video": self.video_file}
        return [file for kind, file in files.items() if kind in self.kinds]

    def write(self, name: str, prediction: Prediction, image: Path | None = None) -> None:
        """Writes everything of one pair; ``image`` is its RGB file, where it has one.

        Raises:
            MachineError: No room. UserError: a place that cannot be written.
        """
        for kind, ending in OF_A_PAIR.items():
            if kind == "labelme" and kind in self.kinds:
                self._labelme(self.folder / f"{name}{ending}", prediction, image)
            elif kind in self.kinds:
                getattr(self, f"_{kind}")(self.folder / f"{name}{ending}", prediction)
        if "areas" in self.kinds:
            shares = {label: round(share, 6) for label, share in prediction.areas().items()}
            with explained(self.areas_file):
                self.folder.mkdir(parents=True, exist_ok=True)
            append_line(self.areas_file, json.dumps({"name": name, "areas": shares}, ensure_ascii=False))
        if "uncertainty" in self.kinds:
            self._entropies[name] = prediction.uncertainty()
        if "coco" in self.kinds:
            self._coco = self._coco or CocoWriter(_drawing(prediction))
            self._coco.add(prediction.mask, self._shown(name, image))
        if "cvat" in self.kinds:
            self._cvat = self._cvat or CvatWriter(_drawing(prediction))
            self._cvat.add(prediction.mask, self._shown(name, image))
        if "video" in self.kinds:
            self._frame(prediction)

    @staticmethod
    def _shown(name: str, image: Path | None) -> str:
        return f"{name}{image.suffix if image is not None else '.png'}"

    def _labelme(self, file: Path, prediction: Prediction, image: Path | None) -> None:
        if image is None:
            raise ConfigError("--save labelme: it shows image files, and these pairs are none; save `mask` instead")
        shown = os.path.relpath(image.resolve(), file.parent.resolve())
        write_labelme(file, prediction.mask, Path(shown).as_posix(), _drawing(prediction))

    def _mask(self, file: Path, prediction: Prediction) -> None:
        vis.save_picture(file, prediction.mask)

    def _overlay(self, file: Path, prediction: Prediction) -> None:
        vis.save_picture(file, prediction.overlay(legend=True))

    def _colour(self, file: Path, prediction: Prediction) -> None:
        vis.save_picture(file, prediction.coloured())

    def _probabilities(self, file: Path, prediction: Prediction) -> None:
        assert prediction.probabilities is not None
        stream = io.BytesIO()
        halves = prediction.probabilities.astype(np.float16)
        np.savez_compressed(stream, probabilities=halves, classes=np.array(prediction.classes))
        write_bytes(file, stream.getvalue())

    def _divergence(self, file: Path, prediction: Prediction) -> None:
        if not prediction.divergence:
            raise ConfigError("--save divergence: this network does not measure where the modalities diverge")
        vis.save_picture(file, divergence_picture(prediction))

    def _frame(self, prediction: Prediction) -> None:
        picture = prediction.overlay(legend=True)
        height, width = (side - side % 2 for side in picture.shape[:2])  # encoders want even sides
        if self._video is None:
            with explained(self.video_file):
                self._video = VideoFile(self.video_file, self.rate, (height, width))
        height, width = self._video.size
        if picture.shape[0] < height or picture.shape[1] < width:
            raise ConfigError(
                f"--save video: a frame of {picture.shape[1]}x{picture.shape[0]} pixels behind others of "
                f"{width}x{height}; frames of one size make a video"
            )
        self._video.write(picture[:height, :width])


def _drawing(prediction: Prediction) -> Drawing:
    return Drawing(prediction.classes, palette=prediction.palette.tolist(), min_pixels=SMALLEST)


def _in_csv(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n') else text


def divergence_picture(prediction: Prediction) -> np.ndarray:
    """The divergence of stage 1 at the size of the image in false colours, ``[H, W, 3]`` uint8; dark is alike."""
    divergence = vis.enlarged(prediction.divergence[0], prediction.mask.shape)
    low, high = np.percentile(divergence, (1, 99))
    return vis.heatmap(divergence, float(low), float(high))
