"""`type: Folder` with one file for RGB and thermal: four channels, or a radiometric JPEG with a photograph inside."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from layouts import scenes_of, write_image
from radiometric_files import with_photograph

from mdg.data import build_dataset
from mdg.data.reading.radiometric import read_embedded_visible
from mdg.data.reading.thermal import read_raw_thermal, scale_thermal
from mdg.errors import DataError
from mdg.options.files import ThermalScaling

CLASSES = [f"c{k}" for k in range(9)]


def build(root: Path, **options):
    return build_dataset({"type": "Folder", "root": root, "classes": CLASSES, "val_split": None, **options}, "test")


def write_joint(root: Path) -> Path:
    """``test/pairs/0.png`` of four channels and ``test/labels/0.png``."""
    _, scene = next(scenes_of("test", 1))
    (root / "test" / "pairs").mkdir(parents=True)
    assert cv2.imwrite(str(root / "test" / "pairs" / "0.png"), np.dstack([scene.rgb[..., ::-1], scene.thermal]))
    write_image(root / "test" / "labels" / "0.png", scene.label)
    return root


def test_four_channels_named_as_both(tmp_path):
    dataset = build(write_joint(tmp_path), rgb="{split}/pairs/{name}.png", thermal="{split}/pairs/{name}.png")
    (_, scene), frame = next(scenes_of("test", 1)), dataset[0]
    np.testing.assert_array_equal(frame.rgb_HW3, scene.rgb)
    np.testing.assert_array_equal(frame.thermal_HW, scene.thermal)
    assert dataset.sources(0) == [tmp_path / "test/pairs/0.png", tmp_path / "test/labels/0.png"]
    dataset.require_complete()


def test_four_channels_listed_as_both(tmp_path):
    root = write_joint(tmp_path)
    (root / "test.txt").write_text("test/pairs/0.png,test/pairs/0.png,test/labels/0.png\n")
    _, scene = next(scenes_of("test", 1))
    np.testing.assert_array_equal(build(root, split_file="{split}.txt")[0].thermal_HW, scene.thermal)


@pytest.fixture
def radiometric_set(tmp_path):
    pytest.importorskip("flyr", reason="flyr, which reads the temperatures, is not installed")
    (tmp_path / "test" / "flir").mkdir(parents=True)
    with_photograph(tmp_path / "test" / "flir")
    write_image(tmp_path / "test" / "labels" / "x.png", np.ones((48, 40), np.uint8))
    return tmp_path


FLIR = {"rgb": "{split}/flir/{name}.jpg", "thermal": "{split}/flir/{name}.jpg"}
DEGREES = {"mode": "celsius", "range": [-10, 45]}


def test_a_radiometric_jpeg_is_its_photograph_and_its_temperatures(radiometric_set):
    frame = build(radiometric_set, **FLIR, thermal_scaling=DEGREES, align="rgb")[0]
    file = radiometric_set / "test/flir/x.jpg"
    np.testing.assert_array_equal(frame.rgb_HW3, read_embedded_visible(file))
    expected_HW = scale_thermal(read_raw_thermal(file), ThermalScaling(**DEGREES), file)
    np.testing.assert_array_equal(frame.thermal_HW, cv2.resize(expected_HW, (40, 48), interpolation=cv2.INTER_LINEAR))


def test_its_two_images_are_told_apart_where_their_sizes_differ(radiometric_set):
    with pytest.raises(DataError) as caught:
        build(radiometric_set, **FLIR, thermal_scaling=DEGREES)[0]
    assert "x.jpg (the photograph inside)" in str(caught.value) and "x.jpg (temperatures)" in str(caught.value)
