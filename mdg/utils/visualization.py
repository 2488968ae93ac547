"""Pictures a person can judge: colour-coded labels, overlays, and captioned panels.

Text in pictures knows the scripts of OpenCV's own font: Latin, Greek, Cyrillic, Arabic, Chinese, Japanese, Korean. What
it does not know becomes a question mark.

Legend: H W image or text, K classes; all pictures are uint8 RGB ``[H, W, 3]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mdg.utils.files import write_bytes

FONT = cv2.FONT_HERSHEY_SIMPLEX
IGNORED_COLOUR = (90, 90, 90)
CAPTION_HEIGHT = 22


def colorize(label_HW: np.ndarray, palette_K3: np.ndarray) -> np.ndarray:
    """Class ids to their colours; ids beyond the palette (ignored pixels) are grey."""
    table = np.empty((256, 3), np.uint8)
    table[:] = IGNORED_COLOUR
    table[: len(palette_K3)] = palette_K3
    return table[label_HW]


def overlay(image_HW3: np.ndarray, label_HW: np.ndarray, palette_K3: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """The image with the classes other than 0 painted over it, each object outlined."""
    colour = colorize(label_HW, palette_K3)
    painted = (label_HW > 0)[..., None]
    blended = np.where(painted, (1 - opacity) * image_HW3 + opacity * colour, image_HW3).astype(np.uint8)
    edges = cv2.morphologyEx(label_HW, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    blended[edges & (label_HW > 0)] = 255
    return blended


def heatmap(values_HW: np.ndarray, low: float, high: float) -> np.ndarray:
    """A map of numbers in false colours: dark blue at ``low``, yellow at ``high``."""
    scaled = np.clip((values_HW.astype(np.float32) - low) / max(high - low, 1e-9), 0, 1)
    return cv2.applyColorMap((255 * scaled).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]


def framed(picture_HW3: np.ndarray, colour: tuple[int, int, int] = (220, 30, 30)) -> np.ndarray:
    """A copy with a frame inside its edges, a fiftieth of the shorter side wide: a warning to whom looks at it."""
    width, picture = max(2, min(picture_HW3.shape[:2]) // 50), picture_HW3.copy()
    for edge in (picture[:width], picture[-width:], picture[:, :width], picture[:, -width:]):
        edge[:] = colour
    return picture


def enlarged(values_HW: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A map of numbers at another size [height, width], smoothly."""
    return cv2.resize(values_HW.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def grey(image_HW: np.ndarray) -> np.ndarray:
    """A single-channel image as RGB."""
    return np.repeat(image_HW[..., None], 3, axis=2)


def panel(pictures: Sequence[tuple[str, np.ndarray]], height: int | None = None) -> np.ndarray:
    """Captioned pictures side by side, scaled to one height (that of the first, at least 160 pixels)."""
    height = height or max(160, pictures[0][1].shape[0])
    return np.concatenate([_captioned(caption, picture, height) for caption, picture in pictures], axis=1)


def _captioned(caption: str, picture: np.ndarray, height: int) -> np.ndarray:
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    # Nearest keeps the colours of labels exact when small maps are enlarged.
    interpolation = cv2.INTER_NEAREST if height >= picture.shape[0] else cv2.INTER_AREA
    resized = cv2.resize(picture, (width, height), interpolation=interpolation)
    bar = np.full((CAPTION_HEIGHT, width, 3), 255, np.uint8)
    write(bar, caption, (4, 15), 0.45)
    framed = np.concatenate([bar, resized], axis=0)
    framed[:, -1] = 255
    return framed


def stack(panels: Sequence[np.ndarray]) -> np.ndarray:
    """Panels below one another, padded with white to one width."""
    width = max(p.shape[1] for p in panels)
    return np.concatenate([np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in panels])


def legend(classes: Sequence[str], palette_K3: np.ndarray, width: int) -> np.ndarray:
    """Colour and name of every class, in as many rows as ``width`` asks for."""
    cell, row = 118, 22
    columns = max(1, width // cell)
    rows = -(-len(classes) // columns)
    picture = np.full((rows * row, width, 3), 255, np.uint8)
    for index, name in enumerate(classes):
        x, y = (index % columns) * cell, (index // columns) * row
        cv2.rectangle(picture, (x + 4, y + 4), (x + 18, y + 17), [int(c) for c in palette_K3[index]], -1)
        cv2.rectangle(picture, (x + 4, y + 4), (x + 18, y + 17), (120, 120, 120), 1)
        write(picture, name, (x + 23, y + 16), 0.42)
    return picture


def save_picture(file: Path, picture: np.ndarray) -> None:
    """Writes an RGB picture ``[H, W, 3]`` or a map of ids ``[H, W]``, uint8, as PNG, making its folder.

    Raises:
        UserError: It cannot be written there.
    """
    stored = picture if picture.ndim == 2 else np.ascontiguousarray(picture[..., ::-1])
    # Not cv2.imwrite: it tells nobody that the disk is full, and crashes on names that are not UTF-8.
    encoded, content = cv2.imencode(".png", stored)
    assert encoded, (file, picture.shape, picture.dtype)
    write_bytes(file, content.tobytes())


def drawable(text: str, longest: int = 200) -> str:
    """The text on one line, without what would end OpenCV (halves of characters, as in names that are not UTF-8)."""
    whole = text.encode("utf-8", "replace").decode("utf-8")
    line = "".join(letter if letter.isprintable() else " " for letter in whole)
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def write(picture_HW3: np.ndarray, text: str, place: tuple[int, int], scale: float) -> None:
    """Writes text into a picture, black; ``place`` is the (x, y) of the left end of its base line."""
    cv2.putText(picture_HW3, drawable(text), place, FONT, scale, (0, 0, 0), 1, cv2.LINE_AA)


def ink(text: str, scale: float) -> np.ndarray:
    """Text as a map of ink, float32 ``[H, W]`` in 0..1."""
    text = drawable(text)
    (width, height), below = cv2.getTextSize(text, FONT, scale, 1)
    margin = round(8 * scale)
    page = np.full((height + below + 2 * margin, width + 2 * margin, 3), 255, np.uint8)
    write(page, text, (margin, height + margin), scale)
    return 1 - page[..., 0].astype(np.float32) / 255
