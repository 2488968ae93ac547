"""A page on which a person clicks points that both cameras see. It needs nothing but itself and sends nothing."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mdg.data.registration.points import COLUMNS
from mdg.utils.files import write_text
from mdg.utils.pages import render
from mdg.utils.pictures import jpeg_uri

QUALITY = 92  # of JPEG
LONGEST = 1600  # pixels of a picture in the page
PAIRS = 12


def write_click_page(file: Path, rgb: dict[str, np.ndarray], thermal: dict[str, np.ndarray]) -> int:
    """Writes the page with at most ``PAIRS`` pairs and gives back their number.

    Args:
        file: HTML.
        rgb, thermal: Images by name of their pair, ``[H, W, 3]`` and ``[H, W]`` uint8.

    Raises:
        UserError: It cannot be written.
    """
    names = list(rgb)
    places = np.unique(np.linspace(0, len(names) - 1, min(PAIRS, len(names))).round().astype(int))
    pairs = [
        {
            "name": names[place],
            "rgb": _picture(rgb[names[place]]),
            "thermal": _picture(_stretched(thermal[names[place]])),
        }
        for place in places
    ]
    write_text(file, render(Path(__file__).with_name("click.html"), pairs=pairs, columns=",".join(COLUMNS)))
    return len(pairs)


def _picture(image: np.ndarray) -> dict[str, object]:
    """A picture and the size of the image that it shows; points are told in pixels of the latter."""
    height, width = image.shape[:2]
    factor = min(1.0, LONGEST / max(height, width))
    small = cv2.resize(image, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_AREA)
    return {"source": jpeg_uri(small, QUALITY), "width": width, "height": height}


def _stretched(thermal_HW: np.ndarray) -> np.ndarray:
    low, high = np.percentile(thermal_HW, (0.5, 99.5))
    return np.clip((thermal_HW.astype(np.float32) - low) * (255 / max(high - low, 1)), 0, 255).astype(np.uint8)
