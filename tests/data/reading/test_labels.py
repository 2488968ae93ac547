"""Label files: ids and colours become class ids exactly, or the file is refused by name."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mdg.data.reading.labels import ColourLabels, IdLabels, describe_ids, read_ids
from mdg.errors import DataError
from mdg.options.folder import resolve_map

PALETTE_K3 = np.array([(0, 0, 0), (220, 20, 60), (0, 0, 142)], np.uint8)
ODD_COLOURS = [(7 * k) % 256 for k in range(48)]  # no colour equals its index


def error_of(action) -> str:
    with pytest.raises(DataError) as caught:
        action()
    return str(caught.value)


def ids(count: int, dtype=np.uint8) -> np.ndarray:
    """[6, 8] with every id below ``count``."""
    return (np.arange(48).reshape(6, 8) % count).astype(dtype)


def write(file: Path, image: np.ndarray) -> Path:
    """Writes [H, W], or channels in the order R, G, B(, A)."""
    order = {2: slice(None), 3: [2, 1, 0], 4: [2, 1, 0, 3]}[image.ndim if image.ndim == 2 else image.shape[2]]
    assert cv2.imwrite(str(file), image if image.ndim == 2 else np.ascontiguousarray(image[..., order]))
    return file


def write_palette(file: Path, ids_HW: np.ndarray, bits: int = 8) -> Path:
    image = Image.fromarray(ids_HW).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette(ODD_COLOURS)
    image.save(file, bits=bits)
    return file


# --- ids as stored -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_ids_of_8_and_16_bits(tmp_path, dtype, suffix):
    read = read_ids(write(tmp_path / f"x{suffix}", ids(9, dtype)))
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, ids(9))


@pytest.mark.parametrize("bits, count", [(1, 2), (2, 4), (4, 16), (8, 16)])
def test_palette_gives_indices_not_colours(tmp_path, bits, count):
    file = write_palette(tmp_path / "x.png", ids(count), bits)
    assert file.read_bytes()[24:26] == bytes([bits, 3]), "the file no longer tests what it should"
    np.testing.assert_array_equal(read_ids(file), ids(count))


def test_palette_with_a_transparent_colour(tmp_path):
    Image.open(write_palette(tmp_path / "x.png", ids(5))).save(tmp_path / "y.png", transparency=0)
    np.testing.assert_array_equal(read_ids(tmp_path / "y.png"), ids(5))


def grey_png(bits: int, ids_HW: np.ndarray) -> bytes:
    """A greyscale PNG of less than 8 bits per pixel, put together by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = ids_HW.shape
    binary = ((ids_HW[..., None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8)
    rows = np.packbits(binary.reshape(height, -1), axis=1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_is_not_stretched(tmp_path, bits):
    """Image libraries stretch such greys to 0..255; class 1 of a binary mask would become 255, ignored."""
    file = tmp_path / "x.png"
    file.write_bytes(grey_png(bits, ids(2**bits)))
    assert cv2.imread(str(file), cv2.IMREAD_UNCHANGED).max() == 255
    np.testing.assert_array_equal(read_ids(file), ids(2**bits))


def test_binary_mask_of_pillow(tmp_path):
    Image.fromarray(ids(2).astype(bool)).save(tmp_path / "x.png")
    np.testing.assert_array_equal(IdLabels(2, None, [255])(tmp_path / "x.png"), ids(2))


@pytest.mark.parametrize("alpha", [False, True])
def test_three_equal_channels(tmp_path, alpha):
    image = np.dstack([ids(5)] * 3 + ([np.full((6, 8), 255, np.uint8)] if alpha else []))
    read = read_ids(write(tmp_path / "x.png", image))
    assert read.shape == (6, 8) and read.flags.c_contiguous
    np.testing.assert_array_equal(read, ids(5))


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_three_channels_of_which_one_differs_are_colours(tmp_path, channel):
    image = np.dstack([ids(5)] * 3)
    image[2, 3, channel] += 1
    assert "got colours" in error_of(lambda: read_ids(write(tmp_path / "x.png", image)))


def test_colours_are_no_ids(tmp_path):
    message = error_of(lambda: read_ids(write(tmp_path / "x.png", PALETTE_K3[ids(3)])))
    assert "got colours" in message and "data.label_format: colours" in message


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_numbers_of_other_kinds(tmp_path, dtype):
    message = error_of(lambda: read_ids(write(tmp_path / "x.tiff", ids(3, dtype))))
    assert np.dtype(dtype).name in message and "8 or 16 bits" in message


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n" + bytes(30)])
def test_no_image(tmp_path, content):
    file = tmp_path / "x.png"
    file.write_bytes(content)
    message = error_of(lambda: read_ids(file))
    assert str(file) in message and "copy it again" in message


def test_damaged_palette_png(tmp_path):
    file = write_palette(tmp_path / "x.png", np.random.default_rng(0).integers(0, 16, (60, 80), np.uint8))
    whole = file.read_bytes()
    for end in (26, 60, len(whole) // 2, len(whole) - 30):
        file.write_bytes(whole[:end])
        message = error_of(lambda: read_ids(file))
        assert str(file) in message and f"({end} bytes)" in message


def test_missing_file(tmp_path):
    assert str(tmp_path / "x.png") in error_of(lambda: read_ids(tmp_path / "x.png"))


# --- ids to classes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_plain_ids(tmp_path, dtype):
    label_HW = IdLabels(9)(write(tmp_path / "x.png", ids(9, dtype)))
    assert label_HW.dtype == np.uint8
    np.testing.assert_array_equal(label_HW, ids(9))


def test_255_is_an_error_unless_it_is_ignored(tmp_path):
    image = ids(3)
    image[1, 2] = 255
    file = write(tmp_path / "x.png", image)
    assert "got label ids 255, expected 0..2" in error_of(lambda: IdLabels(3)(file))
    np.testing.assert_array_equal(IdLabels(3, None, [255])(file), image)


def test_ids_that_are_no_class_are_listed(tmp_path):
    image = ids(3, np.uint16)
    image[0, :4] = (3, 700, 65535, 3)
    file = write(tmp_path / "x.png", image)
    message = error_of(lambda: IdLabels(3, None, [255])(file))
    for part in (str(file), "got label ids 3, 700, 65535, expected 0..2, 255", "data.label_map"):
        assert part in message


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_first_id_that_is_no_class(tmp_path, dtype):
    message = error_of(lambda: IdLabels(3)(write(tmp_path / "x.png", ids(4, dtype))))
    assert "got label ids 3, expected 0..2" in message


def test_many_wrong_ids_are_cut_short(tmp_path):
    message = error_of(lambda: IdLabels(2)(write(tmp_path / "x.png", ids(48))))
    assert "got label ids 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 ..., expected 0..1" in message


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_mapping(tmp_path, dtype):
    mapping = {0: 0, 7: 1, 8: 1, 200: 2, 9: 255} | ({40000: 2} if dtype == np.uint16 else {})
    stored = np.resize(np.array(list(mapping), dtype), (6, 8))
    expected = np.resize(np.array(list(mapping.values())), (6, 8))
    label_HW = IdLabels(3, mapping)(write(tmp_path / "x.png", stored))
    assert label_HW.dtype == np.uint8
    np.testing.assert_array_equal(label_HW, expected)


def test_an_id_the_mapping_does_not_name_is_an_error_even_if_it_is_a_class(tmp_path):
    reader = IdLabels(3, {0: 0, 7: 1, 8: 2}, [255])
    message = error_of(lambda: reader(write(tmp_path / "x.png", ids(2))))
    assert "got label ids 1, expected 0, 7..8, 255" in message


def test_ignored_ids_become_255(tmp_path):
    reader = IdLabels(3, None, [0, 9])
    for stored, expected in (([[0, 1], [2, 9]], [[255, 1], [2, 255]]), ([[0, 1], [2, 0]], [[255, 1], [2, 255]])):
        assert reader(write(tmp_path / "x.png", np.array(stored, np.uint8))).tolist() == expected


def test_a_class_for_255_wins_over_its_being_ignored(tmp_path):
    """Masks of 0 and 255 are common."""
    file = write(tmp_path / "x.png", 255 * ids(2))
    np.testing.assert_array_equal(IdLabels(2, {0: 0, 255: 1}, [255])(file), ids(2))


def test_255_classes(tmp_path):
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(IdLabels(255, None, [255])(write(tmp_path / "x.png", image)), image)


def test_palette_indices_are_mapped(tmp_path):
    file = write_palette(tmp_path / "x.png", ids(3))
    np.testing.assert_array_equal(IdLabels(2, {0: 0, 1: 1, 2: 255})(file), np.array([0, 1, 255])[ids(3)])


@pytest.mark.parametrize(
    "known, text",
    [({0: 0, 1: 1, 2: 2}, "0..2"), ({5: 0}, "5"), ({255: 255, 0: 0, 1: 1, 7: 1, 9: 1}, "0..1, 7, 9, 255")],
)
def test_ids_in_words(known, text):
    assert describe_ids(known) == text


def test_map_by_names_ids_and_ignore():
    assert resolve_map({0: "bg", 1: "man", 2: 1, 9: "ignore"}, ("bg", "man")) == {0: 0, 1: 1, 2: 1, 9: 255}
    assert resolve_map(None, ("bg", "man")) is None


# --- colours -----------------------------------------------------------------------------------------------------


def test_colours_are_classes(tmp_path):
    reader = ColourLabels(PALETTE_K3)
    label_HW = reader(write(tmp_path / "x.png", PALETTE_K3[ids(3)]))
    assert label_HW.dtype == np.uint8
    np.testing.assert_array_equal(label_HW, ids(3))


def test_channels_are_not_swapped(tmp_path):
    reader = ColourLabels(np.array([(1, 2, 3), (3, 2, 1)], np.uint8))
    image = np.array([[(3, 2, 1), (1, 2, 3)]], np.uint8)
    assert reader(write(tmp_path / "x.png", image)).tolist() == [[1, 0]]
    Image.fromarray(image).save(tmp_path / "y.png")
    assert reader(tmp_path / "y.png").tolist() == [[1, 0]]


def test_every_colour_of_a_large_palette(tmp_path):
    colours = np.unique(np.random.default_rng(0).integers(0, 256, (300, 3), np.uint8), axis=0)[:255]
    colours = np.random.default_rng(1).permutation(colours)
    order_HW = np.random.default_rng(2).integers(0, len(colours), (40, 50))
    label_HW = ColourLabels(colours)(write(tmp_path / "x.png", colours[order_HW]))
    np.testing.assert_array_equal(label_HW, order_HW)


def test_ignored_colours(tmp_path):
    reader = ColourLabels(PALETTE_K3, [(255, 255, 255), (9, 9, 9)])
    image = np.array([[(255, 255, 255), (0, 0, 142), (9, 9, 9), (0, 0, 0)]], np.uint8)
    assert reader(write(tmp_path / "x.png", image)).tolist() == [[255, 2, 255, 0]]


def test_unknown_colours_are_counted_and_listed(tmp_path):
    image = PALETTE_K3[ids(3)]
    image[0, :7] = [(1, 2, 3), (1, 2, 3), (255, 255, 255), (0, 0, 1), (0, 1, 0), (1, 0, 0), (220, 20, 61)]
    file = write(tmp_path / "x.png", image)
    message = error_of(lambda: ColourLabels(PALETTE_K3)(file))
    assert f"{file}: got 6 colour(s) that are no class on 7 pixels" in message
    assert ": [0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 2, 3], [220, 20, 61] ...;" in message
    assert "data.ignore_colours" in message and "take lossless labels" in message


def test_palette_png_and_opaque_alpha_as_colours(tmp_path):
    reader = ColourLabels(np.array(ODD_COLOURS[:9], np.uint8).reshape(3, 3))
    np.testing.assert_array_equal(reader(write_palette(tmp_path / "p.png", ids(3))), ids(3))
    image = np.dstack([PALETTE_K3[ids(3)], np.full((6, 8), 255, np.uint8)])
    np.testing.assert_array_equal(ColourLabels(PALETTE_K3)(write(tmp_path / "a.png", image)), ids(3))


@pytest.mark.parametrize(
    "image, advice",
    [
        (ids(3), "got 1 channel(s), expected 3 of colour; for ids set data.label_format: ids"),
        (
            np.dstack([PALETTE_K3[ids(3)], ids(3)]),
            "got 4 channel(s), expected 3 of colour; save it without transparency",
        ),
    ],
)
def test_files_without_three_channels(tmp_path, image, advice):
    assert advice in error_of(lambda: ColourLabels(PALETTE_K3)(write(tmp_path / "x.png", image)))


def test_16_bit_colours(tmp_path):
    file = write(tmp_path / "x.png", PALETTE_K3[ids(3)].astype(np.uint16))
    assert "got uint16 values" in error_of(lambda: ColourLabels(PALETTE_K3)(file))


@pytest.mark.parametrize("ignored", [[(9, 9, 9), (9, 9, 9)], [(220, 20, 60)]])
def test_colours_named_twice(ignored):
    message = error_of(lambda: ColourLabels(PALETTE_K3, ignored))
    assert f"{list(ignored[0])} twice" in message and "one colour per class" in message


def test_palette_that_repeats_a_colour():
    assert "[0, 0, 0] twice" in error_of(lambda: ColourLabels(np.zeros((2, 3), np.uint8)))


# --- containers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, options",
    [
        ("JPEG", {"quality": 100}),
        ("WEBP", {"quality": 90}),
        ("TIFF", {"compression": "jpeg"}),
        ("JPEG2000", {"irreversible": True}),
    ],
)
@pytest.mark.parametrize("colours", [False, True])
def test_lossy_containers_are_refused_whatever_their_name(tmp_path, kind, options, colours):
    stored = PALETTE_K3[ids(3)] if colours else ids(3)
    reader = ColourLabels(PALETTE_K3) if colours else IdLabels(256 - 1, None, [255])
    file = tmp_path / "x.png"
    Image.fromarray(np.kron(stored, np.ones((8, 8, 1) if colours else (8, 8), np.uint8))).save(file, kind, **options)
    message = error_of(lambda: reader(file))
    assert f"{file}: got a {kind} file, compressed with loss; labels must be stored without loss" in message
    assert "Export them again as PNG" in message


@pytest.mark.parametrize("kind, options", [("WEBP", {"lossless": True}), ("JPEG2000", {}), ("TIFF", {}), ("BMP", {})])
def test_other_lossless_containers_are_read(tmp_path, kind, options):
    Image.fromarray(ids(5)).convert("RGB" if kind == "WEBP" else "L").save(tmp_path / "x", kind, **options)
    np.testing.assert_array_equal(read_ids(tmp_path / "x"), ids(5))


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PNG"])
@pytest.mark.parametrize("grey", [False, True])
def test_palettes_of_all_formats_give_indices(tmp_path, kind, grey):
    """Also where the colours are greys: rendered, they would pass for other ids."""
    image = Image.frombytes("P", (8, 6), ids(5).tobytes())
    image.putpalette([20 * k for k in range(10) for _ in range(3)] if grey else ODD_COLOURS)
    image.save(tmp_path / "x", kind)
    np.testing.assert_array_equal(read_ids(tmp_path / "x"), ids(5))


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PNG"])
def test_masks_of_one_bit_are_0_and_1(tmp_path, kind):
    """OpenCV makes them 0 and 255, and 255 would be ignored."""
    Image.fromarray(ids(2).astype(bool)).save(tmp_path / "x", kind)
    np.testing.assert_array_equal(IdLabels(2, None, [255])(tmp_path / "x"), ids(2))


def test_transparency_that_hides_something_is_named(tmp_path):
    hidden = np.full((6, 8), 255, np.uint8)
    opaque = hidden.copy()
    hidden[0, 0] = 0
    for planes in ([ids(3)] * 3, [ids(3), ids(2), ids(3)]):
        message = error_of(lambda planes=planes: read_ids(write(tmp_path / "x.png", np.dstack([*planes, hidden]))))
        assert "fourth channel" in message and "save it without transparency" in message
        assert ("got colours" in message) == (planes[1] is not planes[0])
    grey = Image.fromarray(np.dstack([ids(3), hidden]), "LA")
    grey.save(tmp_path / "la.png")
    assert "save it without transparency" in error_of(lambda: read_ids(tmp_path / "la.png"))
    grey.save(tmp_path / "la.tif")  # OpenCV would drop the second channel
    assert "got 2 channels" in error_of(lambda: read_ids(tmp_path / "la.tif"))
    Image.fromarray(np.dstack([ids(3), opaque]), "LA").save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(read_ids(tmp_path / "opaque.png"), ids(3))


def test_many_blended_ids_are_explained(tmp_path):
    message = error_of(lambda: IdLabels(2, None, [255])(write(tmp_path / "x.png", ids(48))))
    assert message.endswith("So many ids come from resizing, or from JPEG on the way")
    assert "JPEG" not in error_of(lambda: IdLabels(2)(write(tmp_path / "x.png", ids(4))))


# --- masks of 0 and 255 ------------------------------------------------------------------------------------------


def write_masks(folder: Path, *images: np.ndarray) -> list[Path]:
    return [write(folder / f"{index}.png", image) for index, image in enumerate(images)]


def with_ids(*values: int) -> np.ndarray:
    return np.resize(np.array(values, np.uint8), (6, 8))


def test_masks_of_0_and_255_are_doubted(tmp_path):
    files = write_masks(tmp_path, with_ids(0), with_ids(0, 255), with_ids(0, 255))
    doubt = IdLabels(2, None, [255]).find_doubt(files)
    assert doubt.startswith(f"{files[1]}: 2 of 3 label files hold 255, which is ignored")
    assert "data.label_map: {0: 0, 255: 1}" in doubt and "data.label_map: {0: 0, 1: 1, 255: ignore}" in doubt


@pytest.mark.parametrize(
    "reader, images",
    [
        (IdLabels(2, None, [255]), [with_ids(0, 255), with_ids(0, 1, 255)]),  # 255 beside both classes
        (IdLabels(2, None, [255]), [with_ids(0), with_ids(0)]),  # nothing is ignored
        (IdLabels(2, {0: 0, 255: 1}, [255]), [with_ids(0, 255)]),  # 255 is a class
        (IdLabels(2, {0: 0, 1: 1, 255: 255}), [with_ids(0, 255)]),  # said to be meant
        (IdLabels(2), [with_ids(0, 255)]),  # an error of its own
        (IdLabels(2, None, [255]), []),
    ],
)
def test_what_is_meant_is_not_doubted(tmp_path, reader, images):
    assert reader.find_doubt(write_masks(tmp_path, *images)) is None


def test_unreadable_labels_are_left_to_whoever_reads_them(tmp_path):
    files = write_masks(tmp_path, with_ids(0, 255), with_ids(0, 255))
    files[0].write_bytes(b"")
    assert "1 of 2 label files hold 255" in IdLabels(2, None, [255]).find_doubt([*files])
    assert IdLabels(2, None, [255]).find_doubt([files[0], tmp_path / "missing.png"]) is None
