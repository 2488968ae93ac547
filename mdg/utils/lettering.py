"""Text in pictures, in the scripts that OpenCV's own font knows: Latin, Greek, Cyrillic, Arabic, Chinese, Japanese,
Korean. What it does not know becomes a question mark.

Legend: H W size of the text in pixels.
"""

from __future__ import annotations

import cv2
import numpy as np

FONT = cv2.FONT_HERSHEY_SIMPLEX


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
