"""Rigs in files, and thermal images on the grid of RGB.

Legend: H, W size of RGB.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import yaml
from pydantic import ValidationError

from mdg.data.registration import geometry
from mdg.errors import DataError
from mdg.options.rig import Lens, Rig
from mdg.utils.files import explained, write_text
from mdg.utils.limits import limit, require_within
from mdg.utils.yaml_loader import BoundedLoader

HEAD = """\
# Two fixed cameras, as tools/register.py found them: where a thermal pixel lies in the RGB image. Used with
#   data: {align: {mode: rig, file: THIS FILE}}      in a configuration
#   --align THIS FILE                                with tools
"""
ASPECT_TOLERANCE = 0.01  # relative; cameras round their sides to multiples of 8 or 16
UNDISTORTED = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-8)
ROUNDING = 1e-3  # pixels
FAR = -1e5  # pixels: outside of every image


def write_rig(file: Path, rig: Rig) -> None:
    """Writes a rig as YAML that :func:`read_rig` reads back to an equal one; raises UserError as ``write_text``."""
    write_text(file, HEAD + yaml.safe_dump(rig.model_dump(mode="json"), sort_keys=False, default_flow_style=None))


def read_rig(file: Path) -> Rig:
    """Reads a rig; a file that has not changed is read once.

    Raises:
        DataError: No such file, or one that holds no rig; the message says what is wrong with which key.
    """
    try:
        with explained(file):
            stat = file.stat()
    except ValueError as error:
        raise DataError(f"{error}; a rig is written by tools/register.py") from None
    return _read(file, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=16)
def _read(file: Path, changed: int, size: int) -> Rig:
    if not file.is_file():
        raise DataError(f"{file}: expected a rig, a YAML file as tools/register.py writes it, got no regular file")
    require_within("yaml_bytes", size, file, DataError)
    try:
        with explained(file), open(file, "rb") as stream:
            values = _plain(stream.read(limit("yaml_bytes") + 1).decode("utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DataError(f"{file}{line}: not valid YAML ({error.problem or error.context}); expected a rig") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError, LookupError) as error:
        first = str(error).partition("\n")[0]
        raise DataError(f"{file}: cannot be read as YAML ({first}); expected a rig of tools/register.py") from None
    try:
        rig = Rig.model_validate(values)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc'])) or 'content'}: {item['msg']}" for item in error.errors()]
        raise DataError(f"{file}: not a rig: {'; '.join(problems[:4])}; tools/register.py writes one") from None
    if not geometry.sane(np.array(rig.thermal_to_rgb), rig.thermal_size, rig.rgb_size):
        raise DataError(
            f"{file}: thermal_to_rgb folds or mirrors the thermal image, or scales it out of all proportion to "
            f"{_shown(rig.rgb_size)}; expected the matrix from thermal to RGB pixels: register the cameras again"
        )
    return rig


def _plain(text: str) -> Any:
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=BoundedLoader)):
        raise ValueError("aliases, which no rig has")
    return yaml.load(text, Loader=BoundedLoader)


class Mapping(NamedTuple):
    """Where the pixels of RGB lie in a thermal image.

    Attributes:
        places: For ``cv2.remap``: whole and fractional coordinates.
        seen_HW: bool; False where thermal does not reach. Read-only.
    """

    places: tuple[np.ndarray, np.ndarray]
    seen_HW: np.ndarray


def thermal_on_rgb(thermal_HW: np.ndarray, mapping: Mapping) -> np.ndarray:
    """A thermal image, uint8, on the grid of RGB; 0 where it does not reach."""
    # The rim is repeated and then cut off, so that no pixel is a mixture of heat and nothing.
    warped_HW = cv2.remap(thermal_HW, *mapping.places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    warped_HW[~mapping.seen_HW] = 0
    return warped_HW


@functools.lru_cache(maxsize=8)
def map_views(rig: Rig, rgb_size: geometry.Size, thermal_size: geometry.Size) -> Mapping:
    """The mapping for images of some sizes.

    Args:
        rig: For sizes of its own.
        rgb_size, thermal_size: (height, width) of the images: those of the rig, or in proportion to them.

    Raises:
        DataError: Other proportions.
    """
    for part, got, known in (("RGB", rgb_size, rig.rgb_size), ("thermal", thermal_size, rig.thermal_size)):
        if abs(got[1] * known[0] / (got[0] * known[1]) - 1) > ASPECT_TOLERANCE:
            raise DataError(
                f"the {part} image is {_shown(got)} (height x width), the rig was measured on {_shown(known)}, and "
                "their proportions differ; expected images as they were registered: register these cameras anew with "
                "tools/register.py"
            )
    points_N2 = _all_pixels(rgb_size)
    points_N2 = geometry.transform(geometry.resizing(rgb_size, rig.rgb_size), points_N2)
    if rig.rgb_lens is not None:
        points_N2 = undistort(points_N2, rig.rgb_lens)
    points_N2 = geometry.transform(np.linalg.inv(_upright(rig)), points_N2)
    if rig.thermal_lens is not None:
        points_N2 = distort(points_N2, rig.thermal_lens)
    points_N2 = geometry.transform(geometry.resizing(rig.thermal_size, thermal_size), points_N2)
    with np.errstate(invalid="ignore"):
        last = np.array(thermal_size[::-1]) - 1
        inside_N = ((points_N2 >= -ROUNDING) & (points_N2 <= last + ROUNDING)).all(axis=1)
    seen_HW: np.ndarray = inside_N.reshape(rgb_size)
    seen_HW.flags.writeable = False
    x_HW, y_HW = (np.where(seen_HW, axis.reshape(rgb_size), FAR).astype(np.float32) for axis in points_N2.T)
    return Mapping(cv2.convertMaps(x_HW, y_HW, cv2.CV_16SC2), seen_HW)


def _upright(rig: Rig) -> np.ndarray:
    """The matrix with the sign that makes the third number positive in the view."""
    matrix = np.array(rig.thermal_to_rgb)
    x, y = geometry.centre(rig.thermal_size)
    return matrix * np.sign(matrix[2] @ (x, y, 1))


def undistort(points_N2: np.ndarray, lens: Lens) -> np.ndarray:
    """Pixels of a camera to those that it would have without distortion."""
    matrix, distortion = np.array(lens.camera_matrix), np.array(lens.distortion)
    points_N12 = np.ascontiguousarray(points_N2[:, None])
    return cv2.undistortImagePoints(points_N12, matrix, distortion, None, UNDISTORTED)[:, 0]


def distort(points_N2: np.ndarray, lens: Lens) -> np.ndarray:
    """The inverse of :func:`undistort`."""
    matrix, distortion = np.array(lens.camera_matrix), np.array(lens.distortion)
    rays_N3 = np.column_stack([points_N2, np.ones(len(points_N2))]) @ np.linalg.inv(matrix).T
    known_N = np.isfinite(rays_N3).all(axis=1)
    found_N2 = np.full((len(points_N2), 2), np.nan)
    if known_N.any():
        found_N2[known_N] = cv2.projectPoints(rays_N3[known_N], np.zeros(3), np.zeros(3), matrix, distortion)[0][:, 0]
    return found_N2


def _all_pixels(size: geometry.Size) -> np.ndarray:
    ys, xs = np.mgrid[: size[0], : size[1]]
    return np.column_stack([xs.ravel(), ys.ravel()]).astype(np.float64)


def _shown(size: geometry.Size) -> str:
    return f"{size[0]}x{size[1]}"
