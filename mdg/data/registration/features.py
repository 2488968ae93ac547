"""What both cameras see of a scene: the directions of its edges, whichever side is brighter.

The gradient of an image, with its angle doubled so that an edge and its negative are one, and its length bounded so
that a bright lamp counts no more than a kerb. The correlation of two such fields is high where edges lie on edges of
the same direction; edges that cross at 45 degrees count nothing, those at right angles count against.

Source: doubled angles are from Knutsson's and Granlund's orientation tensors (1980s); bounded gradients are those of
"orientation correlation" (Fitch et al., BMVC 2002), which does not double.

Legend: H, W image size.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

SMOOTH = 1.2  # standard deviation in pixels: noise of a camera is finer than that
FLOOR = 1.0  # grey levels per pixel; weaker gradients are noise and compression
BLACK = 3  # grey levels up to which a pixel may belong to a border that a registration or a lens left
FRAME_SHARE = 0.8  # of the black at the rim of an image that must be common to all images, to be such a border
NEAR = 3  # pixels beside a border whose gradients are its own


def orientation(image_HW: np.ndarray, mask_HW: np.ndarray) -> np.ndarray:
    """Doubled-angle gradients, complex64 ``[H, W]`` of length below 1.

    Args:
        image_HW: float32 grey levels.
        mask_HW: float32, 1 where the image shows something; 0 gives 0.
    """
    smooth_HW = cv2.GaussianBlur(image_HW, (0, 0), SMOOTH)
    x_HW, y_HW = (cv2.Sobel(smooth_HW, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    square_HW = x_HW * x_HW + y_HW * y_HW
    length_HW = np.sqrt(square_HW)
    shown = length_HW[mask_HW > 0]
    typical = max(FLOOR, 1.5 * float(np.median(shown)) if len(shown) else FLOOR)
    weight_HW = mask_HW / (np.maximum(length_HW, 1e-6) * (length_HW + typical))
    return ((x_HW * x_HW - y_HW * y_HW) + 2j * x_HW * y_HW).astype(np.complex64) * weight_HW


def shown(images: Sequence[np.ndarray]) -> np.ndarray:
    """Where a camera shows something, float32 ``[H, W]`` of 0 and 1: not the black border that its images share.

    Args:
        images: Several of one camera, ``[H, W]`` uint8.
    """
    borders = [_rim(image_HW <= BLACK) for image_HW in images]
    common_HW = np.logical_and.reduce(borders)
    shares = [common_HW.sum() / border_HW.sum() for border_HW in borders if border_HW.any()]
    # Dark sky at the rim differs between images, unless the cameras stand still; a border is the same in all.
    if len(shares) < len(borders) or np.median(shares) < FRAME_SHARE:
        return np.ones(common_HW.shape, np.float32)
    return (~common_HW).astype(np.float32)


def shrink(mask_HW: np.ndarray, by: int = NEAR) -> np.ndarray:
    """The mask without what lies within ``by`` pixels of its border."""
    return cv2.erode(mask_HW, np.ones((2 * by + 1, 2 * by + 1), np.uint8), borderValue=0)


def _rim(dark_HW: np.ndarray) -> np.ndarray:
    """Those pixels that are connected to the edge of the image."""
    padded = np.pad(dark_HW, 1, constant_values=True).astype(np.uint8)
    _, parts = cv2.connectedComponents(padded, connectivity=4)
    return (parts == parts[0, 0])[1:-1, 1:-1]
