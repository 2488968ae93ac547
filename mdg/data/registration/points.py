"""Correspondences that a person clicked: pixels of RGB and of thermal that show one thing.

The file is CSV with the columns ``pair,x_rgb,y_rgb,x_thermal,y_thermal``, in pixels of the full images.

Legend: N points.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mdg.data.reading.names import decode_lines
from mdg.data.registration import geometry
from mdg.errors import DataError
from mdg.options.rig import Model
from mdg.utils.files import explained
from mdg.utils.limits import limit, require_within

COLUMNS = ("pair", "x_rgb", "y_rgb", "x_thermal", "y_thermal")
LEAST = {"similarity": 3, "affine": 4, "homography": 6}  # one or two more than the parameters need, to see an error
INLIER = 5.0  # pixels of RGB at a width of 640: a click is exact to some of them
WIDTH = 640
TRIALS = 2000


@dataclass(frozen=True)
class Points:
    """Clicked points.

    Attributes:
        pairs: Name of the pair of each.
        rgb_N2, thermal_N2: (x, y) in pixels.
    """

    pairs: list[str]
    rgb_N2: np.ndarray
    thermal_N2: np.ndarray


@dataclass(frozen=True)
class Fit:
    """A map from thermal pixels to RGB pixels, and how well it meets the points.

    Attributes:
        matrix: ``[3, 3]``.
        errors_N: Distance of every point from where the map brings it, in pixels of RGB.
        used_N: bool; the others were taken for mistakes.
        expected: Mean error that a point has that the map was fitted without: each is left out once.
    """

    matrix: np.ndarray
    errors_N: np.ndarray
    used_N: np.ndarray
    expected: float


def read_points(file: Path) -> Points:
    """Reads a file of points.

    Raises:
        DataError: No such file, other columns, or a row that holds no numbers; the message names the line.
    """
    with explained(file), open(file, "rb") as stream:
        content = stream.read(limit("list_bytes") + 1)
    require_within("list_bytes", len(content), file, DataError)
    rows = csv.DictReader(io.StringIO("\n".join(decode_lines(content, file).values())), skipinitialspace=True)
    try:
        missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
        if missing:
            got = ",".join(rows.fieldnames or ())[:80]
            raise DataError(f"{file}: got the columns '{got}', expected {','.join(COLUMNS)} in the first line")
        pairs, places = [], []
        for row in rows:
            pairs.append(str(row["pair"]))
            places.append([_number(row[column], column, file, rows.line_num) for column in COLUMNS[1:]])
    except csv.Error as error:
        raise DataError(f"{file}:{rows.line_num}: not a line of a CSV ({error})") from None
    table = np.array(places, np.float64).reshape(-1, 4)
    return Points(pairs, table[:, :2], table[:, 2:])


def _number(text: object, column: str, file: Path, line: int) -> float:
    try:
        value = float(str(text))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{file}:{line}: {column}: got {str(text)[:40]!r}, expected a number of pixels")
    return value


def fit_points(points: Points, model: Model, rgb_width: int, file: Path | str = "points") -> Fit:
    """The map that most points agree on: random samples (RANSAC), then least squares over those that fit.

    Args:
        points: Undistorted, where there are lenses.
        model: What the matrix may be.
        rgb_width: For the distance within which a point fits.
        file: For messages.

    Raises:
        DataError: Too few points, all on one line, or points that contradict each other.
    """
    count, least = len(points.pairs), LEAST[model]
    if count < least:
        raise DataError(
            f"{file}: got {count} points, expected at least {least} for a {model}, spread over the view; click more"
        )
    tolerance = INLIER * rgb_width / WIDTH
    rng, sample = np.random.default_rng(0), {"similarity": 2, "affine": 3, "homography": 4}[model]
    best: np.ndarray = np.zeros(count, bool)
    for _ in range(TRIALS):
        chosen = rng.choice(count, sample, replace=False)
        matrix = least_squares(points.thermal_N2[chosen], points.rgb_N2[chosen], model)
        if matrix is None:
            continue
        fits = _errors(matrix, points) <= tolerance
        if fits.sum() > best.sum():
            best = fits
    for _ in range(5):  # those that fit the fit
        matrix = least_squares(points.thermal_N2[best], points.rgb_N2[best], model) if best.sum() >= sample else None
        if matrix is None:
            break
        best = _errors(matrix, points) <= tolerance
    if matrix is None or best.sum() < max(least, count / 2):
        raise DataError(
            f"{file}: only {int(best.sum())} of {count} points agree on one {model} within {tolerance:.1f} pixels, "
            f"expected at least {max(least, -(-count // 2))}; check that the columns are not swapped, that points show "
            "one thing in both images, and that they do not lie on one line"
        )
    return Fit(matrix, _errors(matrix, points), best, _left_out(points, best, model))


def least_squares(source_N2: np.ndarray, target_N2: np.ndarray, model: str) -> np.ndarray | None:
    """``[3, 3]``: the map with the least squared distances at the target; None where the points do not tell it."""
    if model == "homography":
        matrix, _ = cv2.findHomography(source_N2, target_N2, 0)
        return None if matrix is None or not np.isfinite(matrix).all() else matrix
    (x, y), zero, one = source_N2.T, np.zeros(len(source_N2)), np.ones(len(source_N2))
    if model == "similarity":
        rows_x, rows_y = np.column_stack([x, -y, one, zero]), np.column_stack([y, x, zero, one])
    else:
        rows_x = np.column_stack([x, y, one, zero, zero, zero])
        rows_y = np.column_stack([zero, zero, zero, x, y, one])
    rows, wanted = np.concatenate([rows_x, rows_y]), np.concatenate([target_N2[:, 0], target_N2[:, 1]])
    found, _, rank, _ = np.linalg.lstsq(rows, wanted, rcond=1e-10)
    if rank < rows.shape[1]:
        return None
    if model == "similarity":
        a, b, left, up = found
        return np.array([[a, -b, left], [b, a, up], [0, 0, 1]])
    return np.vstack([found.reshape(2, 3), [0, 0, 1]])


def _errors(matrix: np.ndarray, points: Points) -> np.ndarray:
    away = np.linalg.norm(geometry.transform(matrix, points.thermal_N2) - points.rgb_N2, axis=1)
    return np.nan_to_num(away, nan=np.inf)


def _left_out(points: Points, used_N: np.ndarray, model: str) -> float:
    errors = []
    for place in np.flatnonzero(used_N):
        others = used_N.copy()
        others[place] = False
        matrix = least_squares(points.thermal_N2[others], points.rgb_N2[others], model)
        if matrix is not None:
            errors.append(_errors(matrix, points)[place])
    return float(np.mean(errors)) if errors else float("inf")
