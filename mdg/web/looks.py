"""What is shown of a prediction: its pictures in a size for the screen, its areas, its files.

Legend: H W image size, h w size on the screen, K classes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from mdg.engine.outputs import OF_A_PAIR, Outputs, divergence_picture
from mdg.engine.predictor import Prediction
from mdg.utils import visualization as vis
from mdg.utils.files import explained, replacing
from mdg.utils.pages import render

LOOKS = ("RGB", "thermal", "overlay", "mask", "divergence")
SHARP = {"overlay", "mask"}  # are enlarged without blur
OPACITY = 0.6
SMALLEST, LARGEST = 640, 1280  # px: the longer side on the screen
WRITTEN = ("divergence", "probabilities", "colour", "mask")


class Shown:
    """A prediction that stays to be looked at, without its probabilities, which are in a file by then.

    Args:
        prediction: Of one pair.
        folder: Its files go there; it belongs to this prediction alone.
        name: What they are called after.
        opacity: Of the overlay among them.

    Attributes:
        files: What was written, in the order in which it is offered.

    Raises:
        MachineError: No room.
    """

    def __init__(self, prediction: Prediction, folder: Path, name: str, opacity: float = OPACITY):
        kinds = [kind for kind in WRITTEN if kind != "divergence" or prediction.divergence]
        outputs = Outputs(folder, kinds)
        outputs.write(name, prediction)
        mask, colour, divergence, probabilities, overlay = (
            folder / f"{name}{OF_A_PAIR[kind][0]}"
            for kind in ("mask", "colour", "divergence", "probabilities", "overlay")
        )
        self._overlay, self.folder = overlay, folder
        self.prediction = replace(prediction, probabilities=None)
        self.looks = tuple(look for look in LOOKS if look != "divergence" or prediction.divergence)
        self.files = [mask, colour, overlay, *([divergence] if prediction.divergence else []), _zipped(probabilities)]
        self.paint(opacity)

    def paint(self, opacity: float) -> None:
        """Writes the overlay anew, with another opacity. The network is not asked again."""
        vis.save_picture(self._overlay, self.prediction.overlay(opacity, legend=True))

    def look(self, name: str, opacity: float = OPACITY) -> np.ndarray:
        """One of :attr:`looks` as it is for the screen, ``[h, w, 3]`` uint8; another one is as RGB.

        All looks of a prediction have one size.
        """
        prediction = self.prediction
        if name == "thermal":
            picture = vis.grey(prediction.thermal)
        elif name == "overlay":
            picture = prediction.overlay(opacity)
        elif name == "mask":
            picture = prediction.coloured()
        elif name == "divergence" and name in self.looks:
            picture = divergence_picture(prediction)
        else:
            picture = prediction.rgb
        return for_screen(picture, name in SHARP)

    def divergence(self) -> list[float]:
        """Mean divergence of the image by stage, 0 (alike) to 2 (opposite); empty where it is not measured."""
        return [float(stage.mean()) for stage in self.prediction.divergence]


def for_screen(picture: np.ndarray, sharp: bool) -> np.ndarray:
    """The picture ``[H, W, 3]`` at a size for the screen; a small one is enlarged by a whole number."""
    height, width = picture.shape[:2]
    longer = max(height, width)
    if longer > LARGEST:
        size = max(1, round(width * LARGEST / longer)), max(1, round(height * LARGEST / longer))
        return cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST if sharp else cv2.INTER_AREA)
    if longer >= SMALLEST:
        return picture
    factor = -(-SMALLEST // longer)
    size = width * factor, height * factor
    return cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST if sharp else cv2.INTER_CUBIC)


def _zipped(file: Path) -> Path:
    """The file in a ZIP of its own name, which takes its place: browsers know what to do with that."""
    archive = file.with_suffix(".zip")
    with replacing(archive) as stream, zipfile.ZipFile(stream, "w") as packed:
        packed.write(file, file.name)
    with explained(file):
        file.unlink()
    return archive


def areas_page(
    areas: Mapping[str, float],
    palette_K3: np.ndarray,
    divergence: Sequence[float] = (),
    what: str = "the image",
    unlike: bool = False,
) -> str:
    """The areas as HTML: a row and a bar for each class that is there, the largest first.

    Args:
        areas: Shares 0..1 by the names of the classes.
        palette_K3: Their colours.
        divergence: Means by stage, told below.
        what: That the shares are of.
        unlike: Say first that the pair is unlike those that trained the network.
    """
    colours = [f"rgb({red}, {green}, {blue})" for red, green, blue in palette_K3.tolist()]
    rows = [
        (name, colour, 100 * share) for (name, share), colour in zip(areas.items(), colours, strict=True) if share > 0
    ]
    return render(
        Path(__file__).with_name("areas.html"),
        rows=sorted(rows, key=lambda row: -row[2]),
        absent=[name for name, share in areas.items() if share <= 0],
        divergence=[f"{value:.2f}" for value in divergence],
        what=what,
        unlike=unlike,
    )
