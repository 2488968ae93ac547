"""One map for all pairs, and what speaks for it: do parts of the pairs, taken alone, lead to the same?

Legend: N pairs. Maps lead from thermal pixels to RGB pixels of the full images unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from mdg.data.registration import coarse, geometry
from mdg.data.registration.refine import Agreement, agreement, improve
from mdg.data.registration.views import Views, make_views

# Longer side of RGB, model at most, and shifts in pixels that are looked at.
LEVELS = (
    (160, "similarity", 4),
    (320, "affine", 5),
    (320, "homography", 4),
    (640, "homography", 4),
    (640, "homography", 4),
)
ORDER = tuple(geometry.PARAMETERS)
SIDE = 640  # errors and shifts are said in pixels of RGB; limits are meant for this longer side
SPLITS = 8  # ways to halve the pairs
SHARED = 1.7  # what halves have in common does not show in their difference: measured on real pairs of known maps
SAME = 16.0  # pixels at SIDE within which two first looks have found one place


@dataclass(frozen=True)
class Estimate:
    """A map, and what speaks for it.

    Attributes:
        matrix: Thermal pixels to RGB pixels, ``[3, 3]``.
        sizes: (height, width) of thermal and of RGB.
        score: Mean correlation of the edges, 0..1.
        peak: By how many standard deviations the first look stands out of all others.
        halves: Share of halves of the pairs whose first look leads to this place.
        error: Expected error in pixels of RGB: half the mean distance between maps of two halves of the pairs, times
            ``SHARED``.
        own: Per pair the distance in pixels of RGB between its own map and this one; infinite where its first look
            leads elsewhere.
    """

    matrix: np.ndarray
    sizes: tuple[geometry.Size, geometry.Size]
    score: float
    peak: float
    halves: float
    error: float
    own: list[float] = field(default_factory=list)


def register(rgb: Sequence[np.ndarray], thermal: Sequence[np.ndarray], model: str = "homography") -> Estimate:
    """Finds the map.

    Args:
        rgb, thermal: Grey images of at least two pairs, ``[H, W]`` uint8; each camera has one size.
        model: ``similarity``, ``affine`` or ``homography``.
    """
    assert len(rgb) == len(thermal) > 1, (len(rgb), len(thermal))
    everyone = np.arange(len(rgb))
    sizes = thermal[0].shape[:2], rgb[0].shape[:2]
    first = make_views(rgb, thermal, coarse.SIDE, sizes[1][1] / sizes[0][1])
    looked = coarse.search(first)
    score, rough = next(looked.best(everyone, 1))
    mean = looked.scores_PCSS.mean(axis=0)
    peak = (score - float(mean.mean())) / (float(mean.std()) + 1e-9)
    matrix = _full(rough, first, sizes)
    for side, richest, reach in LEVELS:
        allowed = ORDER[min(ORDER.index(model), ORDER.index(richest))]
        views = make_views(rgb, thermal, side, _zoom(matrix))
        found, to_thermal = _agreement(views, matrix, sizes, reach)
        better = _improved(found, to_thermal, everyone, allowed, views, sizes)
        if not geometry.sane(better, *sizes):
            break
        matrix = better
    found, to_thermal = _agreement(views, matrix, sizes, reach)

    def of(pairs: np.ndarray) -> np.ndarray:
        return _improved(found, to_thermal, pairs, model, views, sizes)

    limit = SAME * max(sizes[1]) / SIDE
    agree, apart = [], []
    for one, other in _halves(len(rgb)):
        starts = [_full(next(looked.best(half, 1))[1], first, sizes) for half in (one, other)]
        agree += [geometry.distance(matrix, start, *sizes) <= limit for start in starts]
        apart.append(geometry.distance(of(one), of(other), *sizes))
    own = []
    for pair in everyone:
        start = _full(next(looked.best(everyone[pair : pair + 1], 1))[1], first, sizes)
        same = geometry.distance(matrix, start, *sizes) <= limit
        own.append(geometry.distance(matrix, of(everyone[pair : pair + 1]), *sizes) if same else float("inf"))
    return Estimate(
        matrix, sizes, found.score(everyone), peak, float(np.mean(agree)), SHARED * float(np.mean(apart)) / 2, own
    )


def _full(map_33: np.ndarray, views: Views, sizes: tuple[geometry.Size, geometry.Size]) -> np.ndarray:
    return geometry.for_sizes(map_33, (views.thermal_size, views.size), sizes)


def _zoom(matrix: np.ndarray) -> float:
    return float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))


def _agreement(
    views: Views, matrix: np.ndarray, sizes: tuple[geometry.Size, geometry.Size], reach: int
) -> tuple[Agreement, np.ndarray]:
    to_thermal = np.linalg.inv(geometry.for_sizes(matrix, sizes, (views.thermal_size, views.size)))
    return agreement(views, to_thermal, reach), to_thermal


def _improved(
    found: Agreement,
    to_thermal: np.ndarray,
    pairs: np.ndarray,
    model: str,
    views: Views,
    sizes: tuple[geometry.Size, geometry.Size],
) -> np.ndarray:
    return _full(np.linalg.inv(to_thermal @ improve(found, pairs, model)), views, sizes)


def _halves(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    for _ in range(SPLITS):
        order = rng.permutation(count)
        yield order[: (count + 1) // 2], order[(count + 1) // 2 :]
