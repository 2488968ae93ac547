"""Files that are dropped: which hold what, and that messages speak of them by name."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from radiometric_files import photograph, radiometric, with_photograph

from mdg.data.reading.pairs import read_pair
from mdg.errors import ConfigError, DataError
from mdg.options.files import PairOptions
from mdg.utils.limits import raise_limit
from mdg.web.inputs import name_of, options_of_page, read_files

AS_TRAINED = PairOptions()
GREY = np.zeros((40, 48), np.uint8)


@pytest.fixture
def files(pair, tmp_path):
    """By name: RGB, thermal, one of four channels, two with both side by side."""
    rgb, thermal = pair
    grey = np.dstack([thermal] * 3)
    images = {
        "rgb": rgb[..., ::-1],
        "thermal": thermal,
        "both": np.dstack([rgb[..., ::-1], thermal]),
        "left": np.hstack([rgb[..., ::-1], grey]),
        "right": np.hstack([grey, rgb[..., ::-1]]),
    }
    for name, image in images.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    return {name: str(tmp_path / f"{name}.png") for name in images}


def test_every_way_to_drop_a_pair(files, pair):
    ways = [
        (files["rgb"], files["thermal"], "files"),
        (files["both"], None, "files"),
        (None, files["both"], "files"),
        (files["left"], None, "left"),
        (None, files["right"], "right"),
    ]
    for way in ways:
        rgb, thermal = read_files(*way, AS_TRAINED)
        assert np.array_equal(rgb, pair[0]) and np.array_equal(thermal, pair[1]), way
        assert rgb.flags.c_contiguous and thermal.flags.c_contiguous


def test_halves_follow_the_scaling(files, pair):
    black_hot = PairOptions.model_validate({"thermal_scaling": {"invert": True}})
    assert np.array_equal(read_files(files["left"], None, "left", black_hot)[1], 255 - pair[1])


def test_a_radiometric_jpeg_is_both(tmp_path):
    pytest.importorskip("flyr", reason="flyr is an extra")
    file = with_photograph(tmp_path)
    options = options_of_page(AS_TRAINED, "minmax", "rgb", False)
    rgb, thermal = read_files(None, file, "files", options)
    assert rgb.shape == photograph().shape and thermal.shape == rgb.shape[:2]
    expected = read_pair(file, None, options)
    assert np.array_equal(rgb, expected[0]) and np.array_equal(thermal, expected[1])


def _cut(folder):
    file = folder / "cut.png"
    whole = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8))[1].tobytes()
    file.write_bytes(whole[: len(whole) // 2])
    return file


def _image(folder, name, image):
    cv2.imwrite(str(folder / name), image)
    return folder / name


def _text(folder):
    (folder / "notes.png").write_text("no picture\n")
    return folder / "notes.png"


def _colours(folder):
    return _image(folder, "colours.png", np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8))


BAD = {
    "nothing": (lambda f: (None, None, "files"), "got no file; drop an RGB image and a thermal one"),
    "text": (lambda f: (_text(f), _colours(f), "files"), "notes.png: not a readable image"),
    "truncated": (lambda f: (_cut(f), _colours(f), "files"), "cut.png: not a readable image"),
    "RGB alone": (lambda f: (_colours(f), None, "files"), "drop the thermal image beside it, or say that one file"),
    "thermal alone": (
        lambda f: (None, _image(f, "heat.png", GREY), "files"),
        "heat.png: got a thermal image alone, expected an RGB image",
    ),
    "false colours": (lambda f: (_colours(f), _colours(f), "files"), "colours.png: got a colour image"),
    "sizes": (
        lambda f: (_colours(f), _image(f, "heat.png", np.zeros((20, 24), np.uint8)), "files"),
        "“Sizes: both as RGB” under “How the files are read” resizes",
    ),
    "16 bits": (
        lambda f: (_colours(f), _image(f, "heat.png", np.full((40, 48), 7000, np.uint16)), "files"),
        "Set “Thermal values: {mode: fixed, range: [LOW, HIGH]}” under “How the files are read”",
    ),
    "grey RGB": (
        lambda f: (_image(f, "a.png", GREY), _image(f, "b.png", GREY), "files"),
        "“Grey RGB: repeat” under",
    ),
    "two side by side": (lambda f: (_colours(f), _image(f, "b.png", GREY), "left"), "two files, colours.png and b.png"),
    "odd": (lambda f: (_image(f, "odd.png", np.zeros((40, 47, 3), np.uint8)), None, "left"), "47 pixels wide"),
    "colour in both halves": (
        lambda f: (_colours(f), None, "right"),
        "the left half (colour was said to be in the right one): its colours lie",
    ),
    "no photograph": (lambda f: (radiometric(f), None, "files"), "x.jpg: "),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_one_sentence_without_the_folder(case, tmp_path):
    make, expected = BAD[case]
    way = make(tmp_path)
    # Of a radiometric JPEG without the photograph the page must not take its false colours.
    with pytest.raises(DataError) as caught:
        read_files(*way, AS_TRAINED)
    message = str(caught.value)
    assert expected in message and str(tmp_path) not in message and "\n" not in message


def test_large_images_are_refused_before_they_are_decoded(files, monkeypatch):
    monkeypatch.setenv("MDG_LIMIT_PAGE_PIXELS", str(40 * 48 - 1))
    with pytest.raises(DataError, match=r"^rgb.png: got 1,920 pixels .*--limit page_pixels=1920"):
        read_files(files["rgb"], files["thermal"], "files", AS_TRAINED)
    raise_limit("page_pixels=1920")
    read_files(files["rgb"], files["thermal"], "files", AS_TRAINED)


def test_what_is_chosen_on_the_page_counts_before_what_was_trained():
    trained = PairOptions.model_validate({"thermal_scaling": {"mode": "percentile"}, "align": "thermal"})
    assert options_of_page(trained, "", "", False) == trained
    assert options_of_page(trained, None, None, False) == trained
    chosen = options_of_page(trained, "{mode: fixed, range: [7000, 9500]}", "rgb", True)
    assert chosen.thermal_scaling.range == (7000, 9500) and chosen.align == "rgb" and chosen.grey_rgb == "repeat"
    assert trained.align == "thermal"
    with pytest.raises(ConfigError, match="Thermal values: "):
        options_of_page(trained, "{mode: nonsense}", "", False)


def test_names_of_outputs():
    assert name_of("/up/load/a b (1).png", None) == "a_b_1"
    assert name_of(None, "/x/heat.tif") == "heat" and name_of(None, None) == "pair"
    assert name_of("/x/...png") == "pair" and len(name_of("/x/" + "a" * 250 + ".png")) == 60
    assert name_of("/x/größe.png") == "größe"
