"""Calibrations of lenses as OpenCV's samples and tools write them (``cv2.FileStorage``, YAML or XML)."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from pydantic import ValidationError

from mdg.data.reading.images import quiet_opencv
from mdg.data.registration.geometry import Size
from mdg.errors import DataError
from mdg.options.rig import Lens
from mdg.utils.files import explained
from mdg.utils.limits import limit, require_within

MATRIX = ("camera_matrix", "cameraMatrix", "K")
DISTORTION = ("distortion_coefficients", "distCoeffs", "D")
ASPECT_TOLERANCE = 0.01  # relative


def read_calibration(file: Path, size: Size) -> Lens:
    """The lens of a camera, in pixels of images of ``size`` (height, width).

    Where the file says the size it was measured at (``image_width``, ``image_height``), the matrix is scaled.

    Raises:
        DataError: No such file, one without matrix and coefficients, or of images of other proportions.
    """
    with explained(file), open(file, "rb") as stream:
        content = stream.read(limit("yaml_bytes") + 1)
    require_within("yaml_bytes", len(content), file, DataError)
    hint = f"{file}: expected a calibration as OpenCV writes it, with {MATRIX[0]} (3x3) and {DISTORTION[0]}"
    try:
        with quiet_opencv():
            storage = cv2.FileStorage(
                content.decode("utf-8"), cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY | cv2.FILE_STORAGE_FORMAT_AUTO
            )
            matrix, distortion = _node(storage, MATRIX), _node(storage, DISTORTION)
            width, height = (storage.getNode(key).real() for key in ("image_width", "image_height"))
    except (cv2.error, SystemError, UnicodeDecodeError):
        raise DataError(f"{hint}; this file cannot be read as one") from None
    if matrix is None or distortion is None or matrix.shape != (3, 3):
        raise DataError(f"{hint}; {'one of them' if matrix is not None or distortion is not None else 'both'} missing")
    if width > 0 and height > 0:
        if abs(width * size[0] / (height * size[1]) - 1) > ASPECT_TOLERANCE:
            raise DataError(
                f"{file}: was measured on images of {height:g}x{width:g} (height x width), the images here are "
                f"{size[0]}x{size[1]}, and their proportions differ; calibrate in the mode in which pairs are recorded"
            )
        x, y = size[1] / width, size[0] / height
        scaling = np.array([[x, 1, x], [1, y, y], [1, 1, 1]])
        centre = np.array([[0, 0, (x - 1) / 2], [0, 0, (y - 1) / 2], [0, 0, 0]])
        matrix = matrix * scaling + centre
    try:
        return Lens.model_validate({"camera_matrix": matrix.tolist(), "distortion": distortion.ravel().tolist()})
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise DataError(f"{file}: {'; '.join(problems[:3])}") from None


def _node(storage: cv2.FileStorage, names: tuple[str, ...]) -> np.ndarray | None:
    for name in names:
        node = storage.getNode(name)
        if not node.empty():
            found = node.mat()
            if found is not None and found.size:
                return np.asarray(found, np.float64)
    return None
