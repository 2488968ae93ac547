"""Two folders of pairs to a rig: what ``tools/register.py`` calls.

Legend: H, W image size, 3 the channels R, G, B.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mdg.data.reading.images import quiet_opencv, read_rgb
from mdg.data.reading.pair_files import find_pairs
from mdg.data.reading.thermal import read_raw_thermal, scale_thermal
from mdg.data.registration import geometry
from mdg.data.registration.calibration import read_calibration
from mdg.data.registration.joint import SIDE, Estimate, register
from mdg.data.registration.points import Fit, Points, fit_points, read_points
from mdg.data.registration.rig_file import undistort
from mdg.errors import DataError
from mdg.options.files import AS_STORED, ThermalScaling
from mdg.options.rig import Lens, Model, Rig

LEAST = 3  # pairs; with fewer no part of them can contradict the others
MOST = 24  # pairs; more take minutes and add little
HALVES = 0.75  # share of halves of the pairs that must lead to one place
PEAK = 5.0  # standard deviations by which that place must stand out; that of unrelated pairs does by 3 to 5
ERROR = 5.0  # pixels at a width of 640
ADVICE = (
    "record more pairs with edges that both cameras see (buildings, poles, cars, people) all over the view, or click "
    "points: --click page.html writes a page for that, --points FILE takes what it saves"
)
STRETCHED = ThermalScaling(mode="percentile", percentiles=(0.5, 99.5))


@dataclass(frozen=True)
class Pictures:
    """Pairs as they were read.

    Attributes:
        rgb, thermal: By name of the pair, ``[H, W, 3]`` and ``[H, W]`` uint8.
        rgb_size, thermal_size: (height, width), the same in all pairs.
    """

    rgb: dict[str, np.ndarray]
    thermal: dict[str, np.ndarray]
    rgb_size: geometry.Size
    thermal_size: geometry.Size


@dataclass(frozen=True)
class Registered:
    """A rig and what speaks for it: an estimate from edges, or a fit to points."""

    rig: Rig
    pictures: Pictures
    estimate: Estimate | None = None
    fit: Fit | None = None
    points: Points | None = None


def read_pictures(rgb: Path, thermal: Path, most: int = MOST) -> Pictures:
    """Reads pairs of equal names, at most ``most`` of them, evenly over their order.

    Raises:
        DataError: Missing or unpaired files, or images of one camera that differ in size.
    """
    pairs = find_pairs(rgb, thermal)
    names = list(pairs)
    names = [
        names[place] for place in np.unique(np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int))
    ]
    colour, heat = {}, {}
    with quiet_opencv():
        for name in names:
            rgb_file, thermal_file = pairs[name]
            assert thermal_file is not None
            colour[name] = read_rgb(rgb_file, "repeat")
            raw_HW = read_raw_thermal(thermal_file)
            # Edges are compared, which a stretch leaves where they are; 8 bits are left as they are.
            heat[name] = scale_thermal(raw_HW, AS_STORED if raw_HW.dtype == np.uint8 else STRETCHED, thermal_file)
    return Pictures(colour, heat, _one_size(colour, rgb), _one_size(heat, thermal))


def _one_size(images: Mapping[str, np.ndarray], folder: Path) -> geometry.Size:
    first, *others = images
    height, width = images[first].shape[:2]
    for name in others:
        if images[name].shape[:2] != (height, width):
            got = "x".join(map(str, images[name].shape[:2]))
            raise DataError(
                f"{folder}: {first} is {height}x{width} and {name} is {got} (height x width); expected images of one "
                "fixed camera, all of one size"
            )
    return height, width


def find_rig(
    rgb: Path,
    thermal: Path,
    *,
    model: Model = "homography",
    points: Path | None = None,
    rgb_calibration: Path | None = None,
    thermal_calibration: Path | None = None,
) -> Registered:
    """The rig of two fixed cameras, from the edges of pairs or from clicked points.

    Args:
        rgb, thermal: Folders with files of equal names.
        model: What the matrix may be.
        points: A CSV as :func:`mdg.data.registration.points.read_points` reads it; None looks at edges.
        rgb_calibration, thermal_calibration: OpenCV's calibrations of the lenses.

    Raises:
        DataError: Files that cannot be used, pairs that disagree or show too little, points that contradict each other.
    """
    pictures = read_pictures(rgb, thermal)
    lenses: dict[str, Lens | None] = {"rgb_lens": None, "thermal_lens": None}
    if rgb_calibration is not None:
        lenses["rgb_lens"] = read_calibration(rgb_calibration, pictures.rgb_size)
    if thermal_calibration is not None:
        lenses["thermal_lens"] = read_calibration(thermal_calibration, pictures.thermal_size)
    estimate = fit = clicked = None
    if points is not None:
        clicked = read_points(points)
        straight = Points(
            clicked.pairs,
            _straight_points(clicked.rgb_N2, lenses["rgb_lens"]),
            _straight_points(clicked.thermal_N2, lenses["thermal_lens"]),
        )
        fit = fit_points(straight, model, pictures.rgb_size[1], points)
        matrix, error, count = fit.matrix, fit.expected, len(set(clicked.pairs))
    else:
        count = len(pictures.rgb)
        if count < LEAST:
            raise DataError(f"{rgb}: got {count} pair(s), expected at least {LEAST} to compare them; {ADVICE}")
        grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in pictures.rgb.values()]
        estimate = register(
            [_straight_image(image, lenses["rgb_lens"]) for image in grey],
            [_straight_image(image, lenses["thermal_lens"]) for image in pictures.thermal.values()],
            model,
        )
        require_evidence(estimate)
        matrix, error = estimate.matrix, estimate.error
    if not geometry.sane(matrix, pictures.thermal_size, pictures.rgb_size):
        raise DataError(
            f"{points or rgb}: the {model} found folds or mirrors the thermal image; spread the points or edges over "
            "the view, or take a simpler --model (affine, similarity)"
        )
    rig = Rig.model_validate(
        {
            "thermal_to_rgb": np.round(geometry.normal(matrix), 12).tolist(),
            "thermal_size": pictures.thermal_size,
            "rgb_size": pictures.rgb_size,
            **lenses,
            "model": model,
            "found_by": "edges" if points is None else "points",
            "pairs": count,
            "expected_error": round(error, 2) if np.isfinite(error) else None,
        }
    )
    return Registered(rig, pictures, estimate, fit, clicked)


def require_evidence(found: Estimate) -> None:
    """Raises DataError where the pairs contradict each other, or show too little that is common to both cameras."""
    most = ERROR * max(found.sizes[1]) / SIDE
    if found.halves >= HALVES and found.peak >= PEAK and found.error <= most:
        return
    raise DataError(
        f"the {len(found.own)} pairs do not tell how the cameras lie: {100 * found.halves:.0f} % of halves of them "
        f"lead to one place (expected {100 * HALVES:.0f} %), which stands out by {found.peak:.1f} standard deviations "
        f"(expected {PEAK}), and halves differ by an expected error of {found.error:.1f} pixels (expected at most "
        f"{most:.1f}); {ADVICE}"
    )


def _straight_image(image: np.ndarray, lens: Lens | None) -> np.ndarray:
    if lens is None:
        return image
    return cv2.undistort(image, np.array(lens.camera_matrix), np.array(lens.distortion))


def _straight_points(points_N2: np.ndarray, lens: Lens | None) -> np.ndarray:
    return points_N2 if lens is None or not len(points_N2) else undistort(points_N2, lens)


def told_lines(found: Registered) -> list[str]:
    """What was found, for a terminal."""
    rig, pictures = found.rig, found.pictures
    (height, width), (rows, columns) = rig.rgb_size, rig.thermal_size
    lines = [f"{len(pictures.rgb)} pairs: RGB {height}x{width}, thermal {rows}x{columns} (height x width)"]
    if found.estimate is not None:
        lines += ["off by   pair (its own map against that of all, in pixels of RGB)"]
        lines += [
            f"{off:6.1f}   {name}"
            if np.isfinite(off)
            else f"     -   {name}: alone it shows too little, or another view"
            for name, off in zip(pictures.rgb, found.estimate.own, strict=True)
        ]
    if found.fit is not None and found.points is not None:
        lines += ["off by   point (in pixels of RGB)"]
        for number, off in enumerate(found.fit.errors_N):
            place = ", ".join(
                f"{value:.1f}" for value in (*found.points.rgb_N2[number], *found.points.thermal_N2[number])
            )
            note = "" if found.fit.used_N[number] else "  <- left out as a mistake"
            lines.append(f"{off:6.1f}   {found.points.pairs[number]}: {place}{note}")
    matrix = np.array(rig.thermal_to_rgb)
    middle = geometry.transform(matrix, np.array([geometry.centre(rig.thermal_size)]))[0]
    x, y = geometry.centre(rig.thermal_size)
    right = geometry.transform(matrix, np.array([[x + 1, y]]))[0] - middle
    lines.append(
        f"thermal to RGB: {np.linalg.norm(right):.3f} RGB pixels for a thermal pixel, turned by "
        f"{np.rad2deg(np.arctan2(right[1], right[0])):.2f} degrees, its centre at x {middle[0]:.1f}, y {middle[1]:.1f}"
    )
    if found.estimate is not None:
        lines.append(
            f"evidence: edges agree by {found.estimate.score:.2f}, the place stands out by {found.estimate.peak:.1f} "
            f"standard deviations, {100 * found.estimate.halves:.0f} % of halves of the pairs lead there"
        )
    error = "unknown: leave-one-out needs more points" if rig.expected_error is None else f"{rig.expected_error:.1f}"
    lines.append(f"expected error: {error} pixels of RGB")
    return lines
