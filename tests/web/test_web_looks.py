"""What is shown and offered of a prediction is that prediction."""

from __future__ import annotations

import zipfile

import cv2
import numpy as np
import pytest
from pages import parse

from mdg.web.looks import LOOKS, Shown, areas_page, for_screen


def read(file) -> np.ndarray:
    image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    return image if image.ndim == 2 else image[..., ::-1]


def test_files_are_what_the_network_said(diverging, pair, tmp_path):
    prediction = diverging.predict([pair])[0]
    shown = Shown(prediction, tmp_path / "room", "a", opacity=0.3)
    assert [file.name for file in shown.files] == [
        "a_mask.png", "a_colour.png", "a_overlay.png", "a_divergence.png", "a_probabilities.zip",
    ]  # fmt: skip
    assert sorted(shown.files) == sorted((tmp_path / "room").iterdir())
    assert np.array_equal(read(shown.files[0]), prediction.mask)
    assert np.array_equal(read(shown.files[1]), prediction.coloured())
    assert np.array_equal(read(shown.files[2]), prediction.overlay(0.3, legend=True))
    with zipfile.ZipFile(shown.files[4]) as archive, archive.open("a_probabilities.npz") as stream:
        content = np.load(stream)
        np.testing.assert_allclose(content["probabilities"], prediction.probabilities, atol=1e-3)
        assert tuple(content["classes"]) == prediction.classes
    assert shown.prediction.probabilities is None, "they would fill the memory of every session"


def test_opacity_needs_no_second_pass(diverging, pair, tmp_path):
    prediction = diverging.predict([pair])[0]
    shown = Shown(prediction, tmp_path, "a", opacity=0.3)
    shown.paint(0.9)
    assert np.array_equal(read(shown.files[2]), prediction.overlay(0.9, legend=True))
    assert not np.array_equal(shown.look("overlay", 0.9), shown.look("overlay", 0.3))
    painted = prediction.overlay(1.0)
    kernel = np.ones((3, 3), np.uint8)
    inside = (prediction.mask > 0) & (cv2.morphologyEx(prediction.mask, cv2.MORPH_GRADIENT, kernel) == 0)
    assert np.array_equal(painted[inside], prediction.coloured()[inside])


def test_all_looks_have_one_size_and_show_what_they_say(diverging, pair, tmp_path):
    shown = Shown(diverging.predict([pair])[0], tmp_path, "a")
    assert shown.looks == LOOKS
    looks = {name: shown.look(name) for name in shown.looks}
    assert {picture.shape for picture in looks.values()} == {(560, 672, 3)}  # 14 times as large
    assert np.array_equal(looks["mask"][7::14, 7::14], shown.prediction.coloured())
    small = cv2.resize(looks["thermal"], (48, 40), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(small[..., 0].ravel(), pair[1].ravel())[0, 1] > 0.9
    assert np.array_equal(looks["overlay"][7::14, 7::14], shown.prediction.overlay())
    assert len(shown.divergence()) == 4 and all(0 <= value <= 2 for value in shown.divergence())


def test_a_network_without_divergence_offers_none(tiny, pair, tmp_path):
    shown = Shown(tiny.predict([pair])[0], tmp_path, "a")
    assert "divergence" not in shown.looks and shown.divergence() == [] and len(shown.files) == 4
    assert np.array_equal(shown.look("divergence"), shown.look("RGB"))


@pytest.mark.parametrize(
    ("size", "shown"),
    [((40, 48), (560, 672)), ((480, 640), (480, 640)), ((1280, 960), (1280, 960)), ((3000, 4000), (960, 1280)),
     ((2, 5000), (1, 1280)), ((639, 10), (1278, 20))],
)  # fmt: skip
def test_sizes_for_the_screen(size, shown):
    assert for_screen(np.zeros((*size, 3), np.uint8), True).shape[:2] == shown
    assert for_screen(np.zeros((*size, 3), np.uint8), False).shape[:2] == shown


def test_areas_are_sorted_and_escaped():
    areas = {"road": 0.25, "<b>car</b>": 0.745, "kerb": 0.005, "cat & dog": 0.0}
    palette = np.array([[0, 0, 0], [255, 0, 1], [2, 3, 4], [9, 9, 9]], np.uint8)
    page = parse(areas_page(areas, palette, [0.5, 1.25], what="the image"))
    text = [part.strip() for part in page.text if part.strip()]
    assert text[:4] == ["Areas, per cent of the image", "class", "%", "<b>car</b>"]
    assert text[4:9] == ["74.50", "road", "25.00", "kerb", "0.50"]
    assert text[9] == "Not found: cat & dog." and text[10].endswith("\nby stage: 0.50, 1.25.")
    styles = [value for key, value in page.attributes if key == "style"]
    assert styles[:2] == ["background: rgb(255, 0, 1)", "width: 74.50%; background: rgb(255, 0, 1)"]
    assert "b" not in page.tags


def test_no_area_is_left_out(tiny, pair):
    prediction = tiny.predict([pair])[0]
    page = areas_page(prediction.areas(), prediction.palette)
    assert all(name in page for name in prediction.classes)


def test_a_pair_unlike_the_training_is_told_first():
    palette = np.zeros((1, 3), np.uint8)
    text = parse(areas_page({"road": 1.0}, palette, unlike=True)).text
    assert next(part.strip() for part in text if part.strip()).endswith("do not trust its mask.")
    assert not any("trust" in part for part in parse(areas_page({"road": 1.0}, palette)).text)
