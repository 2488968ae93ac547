"""Calibrations as OpenCV writes them, also where images are recorded in another size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mdg.data.registration.calibration import read_calibration
from mdg.errors import DataError, UserError

MATRIX = np.array([[500.0, 0, 320.5], [0, 510.0, 239.5], [0, 0, 1]])
DISTORTION = np.array([[-0.2, 0.05, 0.001, -0.002, 0.0]])


def write(file, **nodes):
    storage = cv2.FileStorage(str(file), cv2.FILE_STORAGE_WRITE)
    for name, value in nodes.items():
        storage.write(name, value)
    storage.release()
    return file


@pytest.mark.parametrize("suffix", ["yml", "yaml", "xml", "json"])
def test_what_opencv_writes_is_read(suffix, tmp_path):
    file = write(tmp_path / f"lens.{suffix}", camera_matrix=MATRIX, distortion_coefficients=DISTORTION)
    lens = read_calibration(file, (480, 640))
    np.testing.assert_array_equal(lens.camera_matrix, MATRIX)
    np.testing.assert_array_equal(lens.distortion, DISTORTION.ravel())


def test_another_size_scales_the_matrix(tmp_path):
    """A ray that met pixel p of the calibrated image meets the same place of the resized one."""
    nodes = {"image_width": 640, "image_height": 480, "camera_matrix": MATRIX, "distortion_coefficients": DISTORTION.T}
    lens = read_calibration(write(tmp_path / "lens.yml", **nodes), (240, 320))
    ray = np.array([0.3, -0.2, 1])
    x, y, _ = MATRIX @ ray
    np.testing.assert_allclose(np.array(lens.camera_matrix) @ ray, [(x + 0.5) / 2 - 0.5, (y + 0.5) / 2 - 0.5, 1])
    with pytest.raises(DataError, match="measured on images of 480x640 .*, the images here are 512x640"):
        read_calibration(tmp_path / "lens.yml", (512, 640))


@pytest.mark.parametrize(
    "nodes, message",
    [
        ({"camera_matrix": MATRIX}, "one of them missing"),
        ({"words": "none"}, "both missing"),
        ({"camera_matrix": MATRIX[:2], "distortion_coefficients": DISTORTION}, "one of them missing"),
        ({"camera_matrix": MATRIX, "distortion_coefficients": DISTORTION[:, :3]}, "got 3 coefficients"),
        ({"camera_matrix": -MATRIX, "distortion_coefficients": DISTORTION}, "focal lengths above 0"),
    ],
)
def test_what_is_no_calibration(nodes, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_calibration(write(tmp_path / "lens.yml", **nodes), (480, 640))


@pytest.mark.parametrize("content", [b"", b"hello", b"%YAML:1.0\n---\na: [", b"\xff\xfe"])
def test_other_files(content, tmp_path):
    (tmp_path / "lens.yml").write_bytes(content)
    with pytest.raises(DataError, match=r"lens\.yml: expected a calibration as OpenCV writes it"):
        read_calibration(tmp_path / "lens.yml", (480, 640))
    with pytest.raises(UserError, match="No such file"):
        read_calibration(tmp_path / "none.yml", (480, 640))
