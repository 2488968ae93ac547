"""The first look: every scale, turn and shift in a range, on small images, for every pair.

Per scale and turn the correlation at all shifts comes from Fourier transforms; fields that do not overlap are left out
of the norms (Padfield, "Masked object registration in the Fourier domain", IEEE TIP 2012).

Legend: P pairs, C combinations of scale and turn, S shifts along an axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from mdg.data.registration import geometry
from mdg.data.registration.views import Views

SIDE = 160  # pixels: the longer side of RGB in this search
SCALES = np.geomspace(0.55, 1.75, 26)  # 4.7 % apart: at most 2 pixels off at the rim
DEGREES = np.arange(-6.0, 6.1, 2.0)  # at most 2 pixels off in the corners
SHIFT = 0.15  # of the longer side, in each direction
LEAST_OVERLAP = 0.3  # of the edges of an image: with fewer in common a correlation says little


@dataclass(frozen=True)
class Search:
    """Correlations of all combinations.

    Attributes:
        scores_PCSS: float32; the axes of shifts are y and x.
        maps_C33: Thermal pixels (of the views) to RGB pixels (of the views) without a shift.
        reach: Shifts run from ``-reach`` to ``reach``.
    """

    scores_PCSS: np.ndarray
    maps_C33: np.ndarray
    reach: int

    def best(self, pairs: np.ndarray, count: int, apart: int = 3) -> Iterator[tuple[float, np.ndarray]]:
        """Score and map (thermal to RGB) of the highest peaks of the mean over some pairs, the highest first.

        Args:
            pairs: Their places.
            count: How many.
            apart: Peaks within so many pixels and combinations of a higher one are part of it.
        """
        mean_CSS = self.scores_PCSS[pairs].mean(axis=0)
        grid_CCSS = mean_CSS.reshape(len(SCALES), len(DEGREES), *mean_CSS.shape[1:]).copy()
        for _ in range(count):
            place = np.unravel_index(int(grid_CCSS.argmax()), grid_CCSS.shape)
            score = float(grid_CCSS[place])
            if not np.isfinite(score):
                return
            combination = int(place[0]) * len(DEGREES) + int(place[1])
            shift = np.eye(3)
            shift[:2, 2] = place[3] - self.reach, place[2] - self.reach
            yield score, shift @ self.maps_C33[combination]
            near = (1, 1, apart, apart)
            around = tuple(slice(max(0, int(at) - by), int(at) + by + 1) for at, by in zip(place, near, strict=True))
            grid_CCSS[around] = -np.inf


def search(views: Views) -> Search:
    """Scores of all combinations; the scale 1 is where both images are equally wide."""
    height, width = views.size
    reach = int(np.ceil(SHIFT * max(height, width)))
    padded = tuple(cv2.getOptimalDFTSize(side + reach + 1) for side in (height, width))
    fixed = [_Fixed(field, views.rgb_mask, padded) for field in views.fields]
    base = width / views.thermal_size[1]
    centres = geometry.centre(views.thermal_size), geometry.centre(views.size)
    maps, scores = [], []
    for scale in SCALES:
        for degrees in DEGREES:
            maps.append(geometry.similarity(float(scale) * base, float(degrees), (0, 0), *centres))
            to_thermal = np.linalg.inv(maps[-1])
            moving = [views.warped(pair, to_thermal) for pair in range(len(fixed))]
            mask = np.fft.rfft2(moving[0][1], padded)  # the same for all pairs
            scores.append([one.correlate(field, mask, reach) for one, (field, _) in zip(fixed, moving, strict=True)])
    return Search(np.array(scores, np.float32).swapaxes(0, 1), np.array(maps), reach)


class _Fixed:
    """Transforms of an RGB field, against which every thermal field is held."""

    def __init__(self, field: np.ndarray, mask: np.ndarray, padded: tuple[int, ...]):
        self.padded = padded
        energy = (field * field.conj()).real
        self.total = float(energy.sum())
        self.field = np.fft.fft2(field, padded).conj()
        self.energy, self.mask = (np.fft.rfft2(image, padded).conj() for image in (energy, mask))

    def correlate(self, field: np.ndarray, mask: np.ndarray, reach: int) -> np.ndarray:
        """``[S, S]``: at (y, x) the correlation of the fixed field with the other one moved by so much; ``mask`` is the
        transform of where the other one shows something."""
        energy = (field * field.conj()).real
        agreement = np.fft.ifft2(self.field * np.fft.fft2(field, self.padded)).real
        mine = np.fft.irfft2(self.energy * mask, self.padded)
        other = np.fft.irfft2(self.mask * np.fft.rfft2(energy, self.padded), self.padded)
        # Content of the fixed field at x is found in the other one at x + d: the other one must move by -d.
        wanted = -np.arange(-reach, reach + 1)
        agreement, mine, other = (image[np.ix_(wanted, wanted)] for image in (agreement, mine, other))
        mine = np.maximum(mine, LEAST_OVERLAP * self.total)
        other = np.maximum(other, LEAST_OVERLAP * float(energy.sum()))
        return agreement / np.sqrt(mine * other + 1e-12)
