"""The images of a few pairs at one working size, and their fields of edges under a map between the two cameras.

The map that is asked for everywhere here leads from RGB pixels to thermal pixels, as pictures are drawn; the one that a
rig stores is its inverse.

Legend: H, W size of RGB at the level; all images are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from mdg.data.registration import geometry
from mdg.data.registration.features import orientation, shown, shrink

Size = geometry.Size


@dataclass(frozen=True)
class Views:
    """Grey images of several pairs, RGB at the size of a level, thermal as large as the search needs it.

    Attributes:
        rgb, thermal: Per pair ``[H, W]`` float32.
        rgb_mask, thermal_mask: Where each camera shows something, 1 or 0.
        fields: Per pair the edges of RGB, complex64.
    """

    rgb: list[np.ndarray]
    thermal: list[np.ndarray]
    rgb_mask: np.ndarray
    thermal_mask: np.ndarray
    fields: list[np.ndarray]

    @property
    def size(self) -> Size:
        return self.rgb_mask.shape

    @property
    def thermal_size(self) -> Size:
        return self.thermal_mask.shape

    def warped(self, pair: int, to_thermal_33: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Edges of thermal on the grid of RGB, and where thermal shows something there (1 or 0)."""
        size, flags = self.size[::-1], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        image_HW = cv2.warpPerspective(
            self.thermal[pair], to_thermal_33, size, flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
        mask_HW = cv2.warpPerspective(self.thermal_mask, to_thermal_33, size, flags=flags)
        mask_HW = shrink((mask_HW > 0.99).astype(np.float32))
        return orientation(image_HW, mask_HW), mask_HW


def make_views(rgb: Sequence[np.ndarray], thermal: Sequence[np.ndarray], side: int, zoom: float = 1.0) -> Views:
    """The pairs at a level.

    Args:
        rgb, thermal: Grey images, uint8, each camera of one size.
        side: Longer side of RGB at this level; smaller images are not enlarged.
        zoom: RGB pixels per thermal pixel, where the level is full size: so much thermal is resized beforehand, for a
            warp that shrinks would alias.
    """
    rgb_mask, thermal_mask = shown(rgb), shown(thermal)
    factor = min(1.0, side / max(rgb_mask.shape))
    small = [_resized(image, factor) for image in rgb]
    heat = [_resized(image, min(1.0, factor * zoom)) for image in thermal]
    mask = shrink(_resized(rgb_mask, factor, cv2.INTER_NEAREST), 2 if rgb_mask.all() else 3)
    fields = [orientation(image, mask) for image in small]
    return Views(small, heat, mask, _resized(thermal_mask, min(1.0, factor * zoom), cv2.INTER_NEAREST), fields)


def _resized(image: np.ndarray, factor: float, interpolation: int = cv2.INTER_AREA) -> np.ndarray:
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    return cv2.resize(image.astype(np.float32), size, interpolation=interpolation)
