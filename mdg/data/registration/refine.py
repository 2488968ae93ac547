"""From a rough map to a fine one: how well every cell of the image agrees, for small shifts, and the map of a few
parameters under which all cells together, over all pairs, agree best.

A cell with edges of one direction knows the shift across them only, and one without edges knows nothing. Their
agreements are therefore added before a maximum is sought, never their shifts.

Legend: P pairs, C cells, S shifts along an axis, K parameters of a model, 2 (x, y).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mdg.data.registration import geometry
from mdg.data.registration.views import Views

CELLS = 16  # along the longer side of the image
STEPS = 25
STEP = 0.5  # pixels, of the differences that stand for derivatives
STIFF = {"similarity": 0.0, "affine": 0.1, "homography": 0.1}
"""How much agreement it takes to leave a similarity. Two cameras side by side differ by little more, and an image whose
edges lie in one corner must not bend the map in the others."""


@dataclass(frozen=True)
class Agreement:
    """Correlation of cells for small shifts of thermal on the grid of RGB, under one map.

    Attributes:
        sums_PCSS: Per pair and cell; the axes of shifts are y and x. Over all cells without a shift they add up to the
            correlation of a pair.
        centres_C2: Of the cells, in pixels.
        reach: Shifts run from ``-reach`` to ``reach``.
        size: Of the image.
    """

    sums_PCSS: np.ndarray
    centres_C2: np.ndarray
    reach: int
    size: geometry.Size

    def score(self, pairs: np.ndarray) -> float:
        """The mean correlation of some pairs without a shift."""
        return float(self.sums_PCSS[pairs][:, :, self.reach, self.reach].sum() / len(pairs))


def agreement(views: Views, to_thermal_33: np.ndarray, reach: int) -> Agreement:
    """Measures it; ``to_thermal_33`` leads from RGB pixels of the views to thermal ones."""
    height, width = views.size
    cell = max(height, width) / CELLS
    cells = (max(1, round(height / cell)), max(1, round(width / cell)))
    sums = []
    for pair, fixed in enumerate(views.fields):
        moving, mask = views.warped(pair, to_thermal_33)
        common = fixed * mask
        norm = np.sqrt(_energy(common) * _energy(moving * views.rgb_mask)) + 1e-6
        along, across = (np.ascontiguousarray(part) for part in (common.real, common.imag))
        there = [np.pad(part, reach) for part in (moving.real, moving.imag)]
        shifted = (
            along * there[0][y : y + height, x : x + width] + across * there[1][y : y + height, x : x + width]
            for y in range(2 * reach + 1)
            for x in range(2 * reach + 1)
        )
        area = height * width / (cells[0] * cells[1])
        small = [cv2.resize(image, cells[::-1], interpolation=cv2.INTER_AREA) * (area / norm) for image in shifted]
        sums.append(np.stack(small, axis=-1).reshape(-1, 2 * reach + 1, 2 * reach + 1))
    middles = [(np.arange(count) + 0.5) * side / count - 0.5 for count, side in zip(cells, views.size, strict=True)]
    ys, xs = np.meshgrid(*middles, indexing="ij")
    return Agreement(np.array(sums, np.float32), np.column_stack([xs.ravel(), ys.ravel()]), reach, views.size)


def _energy(field: np.ndarray) -> float:
    return float((field.real**2 + field.imag**2).sum())


def improve(found: Agreement, pairs: np.ndarray, model: str) -> np.ndarray:
    """``[3, 3]``: the map of RGB pixels onto RGB pixels that must come before the map of the agreement.

    Args:
        found: What was measured.
        pairs: Places of the pairs that count.
        model: ``similarity``, ``affine`` or ``homography``.
    """
    surface = found.sums_PCSS[pairs].mean(axis=0).astype(np.float64)
    radius = max(found.size) / 2
    unit_C2 = (found.centres_C2 - np.array(geometry.centre(found.size))) / radius
    basis_CK2, stiff_K = _basis(unit_C2, model)
    parameters_K = np.zeros(basis_CK2.shape[1])

    def value(parameters_K: np.ndarray) -> float:
        shift_C2 = _moved(unit_C2, parameters_K, model) * radius
        penalty = float((stiff_K * parameters_K**2).sum()) * radius**2 / max(found.reach, 1) ** 2
        return float(_sample(surface, shift_C2, found.reach).sum()) - penalty

    damping = 1e-3
    current = value(parameters_K)
    for _ in range(STEPS):
        shift_C2 = _moved(unit_C2, parameters_K, model) * radius
        slope_C2, bend_C22 = _derivatives(surface, shift_C2, found.reach)
        stiff = 2 * stiff_K * radius**2 / max(found.reach, 1) ** 2
        gradient_K = np.einsum("ckd,cd->k", basis_CK2, slope_C2) * radius - stiff * parameters_K
        bend_KK = np.einsum("ckd,cde,cle->kl", basis_CK2, bend_C22, basis_CK2) * radius**2 + np.diag(stiff)
        moved = False
        while damping < 1e6:
            step_K = np.linalg.solve(bend_KK + damping * np.diag(np.diag(bend_KK) + 1e-9), gradient_K)
            tried = value(parameters_K + step_K)
            if tried > current:
                moved = tried - current > 1e-7
                parameters_K, current, damping = parameters_K + step_K, tried, max(damping / 5, 1e-6)
                break
            damping *= 5
        if not moved:
            break
    to_unit = np.array(
        [[1, 0, -geometry.centre(found.size)[0]], [0, 1, -geometry.centre(found.size)[1]], [0, 0, radius]]
    )
    return np.linalg.inv(to_unit) @ _matrix(parameters_K, model) @ to_unit


def _matrix(parameters_K: np.ndarray, model: str) -> np.ndarray:
    """On coordinates in which the image is about -1..1: shift, scale and turn, then what only some models have."""
    full = np.zeros(8)
    full[: len(parameters_K)] = parameters_K
    x, y, scale, turn, stretch, shear, lean_x, lean_y = full
    return np.array(
        [[1 + scale + stretch, -turn + shear, x], [turn + shear, 1 + scale - stretch, y], [lean_x, lean_y, 1]]
    )


def _moved(unit_C2: np.ndarray, parameters_K: np.ndarray, model: str) -> np.ndarray:
    return geometry.transform(_matrix(parameters_K, model), unit_C2) - unit_C2


def _basis(unit_C2: np.ndarray, model: str) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of the shifts ``[C, K, 2]`` at no shift, and the stiffness of the parameters ``[K]``."""
    x, y = unit_C2.T
    zero, one = np.zeros_like(x), np.ones_like(x)
    rows = [(one, zero), (zero, one), (x, y), (-y, x), (x, -y), (y, x), (-x * x, -x * y), (-x * y, -y * y)]
    count = geometry.PARAMETERS[model]
    stiff = np.array([0.0] * 4 + [STIFF[model]] * (count - 4))
    return np.stack([np.stack(row, axis=-1) for row in rows[:count]], axis=1), stiff


def _derivatives(surface: np.ndarray, shift_C2: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Slopes ``[C, 2]``, and how much the surfaces bend down ``[C, 2, 2]``, never less than not at all."""

    away = STEP * np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (1, 1), (1, -1), (-1, 1), (-1, -1)])
    middle, left, right, up, down, *corners = _sample(surface, shift_C2 + away[:, None], reach)
    slope = np.stack([right - left, down - up], axis=-1) / (2 * STEP)
    cross = (corners[0] - corners[1] - corners[2] + corners[3]) / (4 * STEP**2)
    bend = np.empty((len(middle), 2, 2))
    bend[:, 0, 0] = (2 * middle - left - right) / STEP**2
    bend[:, 1, 1] = (2 * middle - up - down) / STEP**2
    bend[:, 0, 1] = bend[:, 1, 0] = -cross
    values, vectors = np.linalg.eigh(bend)
    return slope, np.einsum("cij,cj,ckj->cik", vectors, np.maximum(values, 0), vectors)


def _sample(surface: np.ndarray, shift_C2: np.ndarray, reach: int) -> np.ndarray:
    """The surfaces ``[C, S, S]`` at shifts between pixels, ``[C]`` or ``[..., C]``, by cubic convolution (Keys, 1981);
    flat beyond the rim."""
    last = 2 * reach
    place = np.minimum(np.maximum(np.nan_to_num(shift_C2, nan=reach) + reach, 0), last)
    first = np.minimum(place.astype(np.intp), last - 1)
    part = place - first
    weights = np.stack([_cubic(part + 1), _cubic(part), _cubic(1 - part), _cubic(2 - part)], axis=-1)
    at = np.minimum(np.maximum(first[..., None] + np.arange(-1, 3), 0), last)  # [..., C, 2, 4]
    cells = np.arange(len(surface))[:, None, None]
    values = surface[cells, at[..., 1, :, None], at[..., 0, None, :]]
    return np.einsum("...yx,...y,...x->...", values, weights[..., 1, :], weights[..., 0, :])


def _cubic(away: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -1/2 at a distance 0..2."""
    near = (1.5 * away - 2.5) * away * away + 1
    far = ((-0.5 * away + 2.5) * away - 4) * away + 2
    return np.where(away <= 1, near, far)
