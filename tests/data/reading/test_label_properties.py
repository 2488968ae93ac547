"""Class ids through files and back: formats, palettes, maps, colours."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mdg.data.reading.images import read_image, read_rgb
from mdg.data.reading.labels import ColourLabels, IdLabels, read_ids
from mdg.errors import DataError
from mdg.fields import IGNORED

sizes = st.tuples(st.integers(1, 24), st.integers(1, 24))
seeds = st.integers(0, 2**32 - 1)
LOSSLESS = {"png": "PNG", "tif": "TIFF", "bmp": "BMP", "webp": "WEBP"}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("labels")


def pixels(size: tuple[int, int], below: int, seed: int, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, below, size, dtype=dtype)


@given(size=sizes, classes=st.integers(1, 255), seed=seeds, kind=st.sampled_from(["png", "tif", "bmp"]))
def test_ids_come_back_from_every_lossless_format(place, size, classes, seed, kind):
    ids_HW = pixels(size, classes, seed)
    file = place / f"grey.{kind}"
    Image.fromarray(ids_HW).save(file, LOSSLESS[kind])
    assert np.array_equal(IdLabels(classes)(file), ids_HW)
    Image.fromarray(np.dstack([ids_HW] * 3)).save(file, LOSSLESS[kind])
    assert np.array_equal(IdLabels(classes)(file), ids_HW)


@given(size=sizes, classes=st.integers(1, 255), seed=seeds)
def test_the_indices_count_and_not_the_palette(place, size, classes, seed):
    ids_HW = pixels(size, classes, seed)
    image = Image.fromarray(ids_HW)
    image.putpalette(np.random.default_rng(seed).bytes(768))
    image.save(place / "palette.png")
    assert np.array_equal(IdLabels(classes)(place / "palette.png"), ids_HW)


@given(size=sizes, classes=st.integers(1, 254), seed=seeds, data=st.data())
def test_a_map_gives_every_id_its_class_and_refuses_the_others(place, size, classes, seed, data):
    mapping = data.draw(
        st.dictionaries(st.integers(0, 65535), st.integers(0, classes - 1) | st.just(IGNORED), min_size=1, max_size=40)
    )
    known = np.array(list(mapping), np.uint16)
    ids_HW = np.random.default_rng(seed).choice(known, size)
    Image.fromarray(ids_HW).save(place / "mapped.png")
    reader = IdLabels(classes, mapping)
    assert np.array_equal(reader(place / "mapped.png"), np.vectorize(mapping.get)(ids_HW))
    stranger = data.draw(st.integers(0, 65535).filter(lambda i: i not in mapping and i != IGNORED))
    ids_HW[0, 0] = stranger
    Image.fromarray(ids_HW).save(place / "mapped.png")
    with pytest.raises(DataError, match=rf"mapped\.png: got label ids {stranger}, expected"):
        reader(place / "mapped.png")


@given(size=sizes, classes=st.integers(1, 20), seed=seeds, data=st.data())
def test_colours_come_back_as_the_ids_they_stand_for(place, size, classes, seed, data):
    colour = st.tuples(*[st.integers(0, 255)] * 3)
    colours = data.draw(st.lists(colour, min_size=classes + 2, max_size=classes + 2, unique=True))
    ignored, stranger = colours[classes], colours[classes + 1]
    palette_K3 = np.array(colours[:classes], np.uint8)
    ids_HW = pixels(size, classes + 1, seed)
    rendered_HW3 = np.array(colours[: classes + 1], np.uint8)[ids_HW]
    Image.fromarray(rendered_HW3).save(place / "colours.png")
    reader = ColourLabels(palette_K3, [ignored])
    assert np.array_equal(reader(place / "colours.png"), np.where(ids_HW == classes, IGNORED, ids_HW))
    rendered_HW3[-1, -1] = stranger
    Image.fromarray(rendered_HW3).save(place / "colours.png")
    with pytest.raises(DataError, match=r"got 1 colour\(s\) that are no class on 1 pixels"):
        reader(place / "colours.png")


@given(size=sizes, seed=seeds, kind=st.sampled_from(list(LOSSLESS)))
def test_pictures_come_back_from_every_lossless_format(place, size, seed, kind):
    rgb_HW3 = pixels((*size, 3), 256, seed)
    file = place / f"rgb.{kind}"
    Image.fromarray(rgb_HW3).save(file, LOSSLESS[kind], **({"lossless": True} if kind == "webp" else {}))
    assert np.array_equal(read_rgb(file), rgb_HW3)


@given(size=sizes, seed=seeds, kind=st.sampled_from(["png", "tif"]), below=st.sampled_from([256, 65536]))
def test_counts_of_16_bits_come_back(place, size, seed, kind, below):
    counts_HW = pixels(size, below, seed, np.uint16)
    Image.fromarray(counts_HW).save(place / f"counts.{kind}")
    assert np.array_equal(read_image(place / f"counts.{kind}"), counts_HW)


@given(
    size=sizes, seed=seeds, cut=st.floats(0, 1, exclude_max=True), kind=st.sampled_from(["PNG", "TIFF", "JPEG", "BMP"])
)
def test_a_file_that_ends_early_is_never_filled_up(place, size, seed, cut, kind):
    stream = io.BytesIO()
    rgb_HW3 = pixels((*size, 3), 256, seed)
    Image.fromarray(rgb_HW3).save(stream, kind)
    data = stream.getvalue()
    file = place / "cut"
    file.write_bytes(data)
    whole = read_image(file)
    file.write_bytes(data[: int(cut * len(data))])
    try:
        found = read_image(file)
    except DataError as error:
        assert str(error).startswith(str(file))
    else:  # what was cut off held no pixels
        assert np.array_equal(found, whole)


@given(size=sizes, seed=seeds, orientation=st.integers(1, 8), kind=st.sampled_from(["PNG", "TIFF"]))
def test_an_orientation_turns_images_and_labels_alike(place, size, seed, orientation, kind):
    """EXIF 2.3: where the first row and the first column of the stored image lie."""
    grey_HW = pixels(size, 200, seed)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(grey_HW).save(place / "turned", kind, exif=exif)
    expected = {
        1: grey_HW,
        2: grey_HW[:, ::-1],
        3: grey_HW[::-1, ::-1],
        4: grey_HW[::-1],
        5: grey_HW.T,
        6: grey_HW.T[:, ::-1],
        7: grey_HW.T[::-1, ::-1],
        8: grey_HW.T[::-1],
    }[orientation]
    assert np.array_equal(read_image(place / "turned"), expected)
    assert np.array_equal(read_ids(place / "turned"), expected)
