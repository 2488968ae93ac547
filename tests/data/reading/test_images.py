"""Image files: channels in order, nothing dropped unseen, and errors that name the file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from layouts import write_image
from PIL import Image

from mdg.data.reading.images import drop_opaque_alpha, read_image, read_rgb, read_rgb_thermal
from mdg.data.reading.thermal import read_raw_thermal
from mdg.errors import FLAGS, DataError


def error_of(action) -> str:
    with pytest.raises(DataError) as caught:
        action()
    return str(caught.value)


def noise(*shape: int, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def write_raw(file: Path, image: np.ndarray) -> Path:
    """Writes channels in OpenCV's order (B, G, R, A)."""
    assert cv2.imwrite(str(file), image)
    return file


# --- decoding ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_depth_and_channel_comes_back(tmp_path, suffix, dtype, channels):
    image = noise(9, 11, channels, dtype=dtype).squeeze()
    read = read_image(write_raw(tmp_path / f"x{suffix}", image))
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, image)


def test_float_tiff_comes_back(tmp_path):
    image = np.random.default_rng(0).normal(300, 20, (9, 11)).astype(np.float32)
    read = read_image(write_raw(tmp_path / "x.tiff", image))
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, image)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_what_is_no_image_is_named_with_its_size(tmp_path, content):
    file = tmp_path / "x.png"
    file.write_bytes(content)
    message = error_of(lambda: read_image(file))
    assert str(file) in message and f"({len(content)} bytes)" in message and "copy it again" in message


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_truncated_image(tmp_path, suffix):
    file = write_raw(tmp_path / f"x{suffix}", noise(60, 60))
    file.write_bytes(file.read_bytes()[:-500])
    assert str(file) in error_of(lambda: read_image(file))


def test_missing_file_and_folder_in_its_place(tmp_path):
    assert "No such file" in error_of(lambda: read_image(tmp_path / "x.png"))
    (tmp_path / "y.png").mkdir()
    assert str(tmp_path / "y.png") in error_of(lambda: read_image(tmp_path / "y.png"))


# --- RGB ---------------------------------------------------------------------------------------------------------


def test_channel_order_against_pillow(tmp_path):
    image = noise(9, 11, 3)
    file = write_image(tmp_path / "x.png", image)
    np.testing.assert_array_equal(read_rgb(file), image)
    np.testing.assert_array_equal(np.array(Image.open(file)), image)


def test_jpeg_and_palette_are_rendered(tmp_path):
    image = np.full((16, 16, 3), (200, 100, 40), np.uint8)
    assert np.abs(read_rgb(write_image(tmp_path / "x.jpg", image)).astype(int) - image).max() <= 3
    file = tmp_path / "p.png"
    Image.fromarray(image).convert("P", palette=Image.Palette.ADAPTIVE).save(file)
    np.testing.assert_array_equal(read_rgb(file), image)


def test_opaque_alpha_is_dropped(tmp_path):
    image = np.dstack([noise(9, 11, 3), np.full((9, 11), 255, np.uint8)])
    np.testing.assert_array_equal(read_rgb(write_raw(tmp_path / "x.png", image)), image[..., 2::-1])


def test_alpha_that_hides_something_is_refused(tmp_path):
    image = np.dstack([noise(9, 11, 3), np.full((9, 11), 255, np.uint8)])
    image[3, 4, 3] = 254
    file = write_raw(tmp_path / "x.png", image)
    message = error_of(lambda: read_rgb(file))
    for part in (str(file), "got 4 channel(s), expected a colour image with 3", "transparency", "type: MFNet"):
        assert part in message


def test_grey_given_as_rgb(tmp_path):
    image = noise(9, 11)
    file = write_raw(tmp_path / "x.png", image)
    message = error_of(lambda: read_rgb(file))
    assert "got 1 channel(s), expected a colour image with 3" in message and "transparency" not in message
    assert "data.grey_rgb: repeat gives the network three equal channels" in message
    assert "--grey-rgb repeat gives" in error_of(lambda: read_rgb(file, wording=FLAGS))
    np.testing.assert_array_equal(read_rgb(file, "repeat"), np.dstack([image] * 3))


def test_repeating_grey_changes_no_colours(tmp_path):
    image = noise(9, 11, 3)
    np.testing.assert_array_equal(read_rgb(write_raw(tmp_path / "x.png", image), "repeat"), image[..., ::-1])


def test_messages_name_flags_where_there_is_no_data_set(tmp_path):
    packed, colour = write_raw(tmp_path / "p.png", noise(9, 11, 4)), write_raw(tmp_path / "c.png", noise(9, 11, 3))
    assert "leave --thermal out" in error_of(lambda: read_rgb(packed, wording=FLAGS))
    assert "leave --thermal out" in error_of(lambda: read_raw_thermal(packed, FLAGS))
    message = error_of(lambda: read_rgb_thermal(colour, FLAGS))
    assert "Name the thermal image" in message and "--thermal" in message and "dropped" not in message


def test_sixteen_bit_rgb_says_what_to_do(tmp_path):
    message = error_of(lambda: read_rgb(write_raw(tmp_path / "x.png", noise(9, 11, 3, dtype=np.uint16))))
    assert "got uint16 values, expected 8 bits per channel; convert" in message


def test_rgb_thermal_takes_alpha_as_thermal_even_where_it_is_opaque(tmp_path):
    image = np.dstack([noise(9, 11, 3), np.full((9, 11), 255, np.uint8)])
    rgb_HW3, thermal_HW = read_rgb_thermal(write_raw(tmp_path / "x.png", image))
    np.testing.assert_array_equal(rgb_HW3, image[..., 2::-1])
    assert (thermal_HW == 255).all() and thermal_HW.shape == (9, 11)


# --- alpha -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_is_dropped_only_where_it_is_opaque_everywhere(dtype):
    full = np.iinfo(dtype).max
    image = np.full((3, 4, 4), full, dtype)
    assert drop_opaque_alpha(image).shape == (3, 4, 3) and drop_opaque_alpha(image).flags.c_contiguous
    image[2, 3, 3] = full - 1
    assert drop_opaque_alpha(image) is image


@pytest.mark.parametrize("image", [np.zeros((3, 4), np.uint8), np.zeros((3, 4, 3), np.uint8), np.ones((3, 4, 4), "f4")])
def test_images_without_alpha_stay_as_they_are(image):
    assert drop_opaque_alpha(image) is image
