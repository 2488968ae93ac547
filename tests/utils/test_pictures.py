"""Pictures inside of a page."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import pytest

from mdg.utils.pictures import class_map, css_colour, photograph, shown_size


def decoded(uri: str) -> np.ndarray:
    content = np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8)
    return cv2.imdecode(content, cv2.IMREAD_UNCHANGED)


def test_a_class_map_keeps_every_pixel():
    image_HW3 = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    picture = class_map("label", image_HW3)
    assert picture.sharp and picture.title == "label" and picture.uri.startswith("data:image/png;base64,")
    assert np.array_equal(decoded(picture.uri)[..., ::-1], image_HW3)


def test_a_photograph_keeps_the_red_of_one_pixel():
    image_HW3 = np.full((16, 16, 3), 128, np.uint8)
    image_HW3[8, 8] = (214, 30, 40)
    picture = photograph("errors", image_HW3, 90)
    seen_3 = decoded(picture.uri)[8, 8, ::-1].astype(int)
    assert not picture.sharp and seen_3[0] - seen_3[1:].max() > 100
    assert decoded(photograph("thermal", image_HW3[..., 0], 90).uri).shape == (16, 16)


@pytest.mark.parametrize(("size", "width", "expected"), [((480, 640), 640, (480, 640)), ((480, 640), 320, (240, 320)),
                                                         ((1, 5000), 320, (1, 320))])  # fmt: skip
def test_no_more_than_is_shown(size, width, expected):
    assert shown_size(np.zeros((*size, 3)), width) == expected


def test_a_colour_of_a_page():
    assert css_colour(np.array([0, 64, 255], np.uint8)) == "#0040ff"
