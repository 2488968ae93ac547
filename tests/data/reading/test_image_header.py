"""Containers of images: turned as viewers turn them, one image a file, whole, and not larger than the limits."""

from __future__ import annotations

import base64
import io
import struct
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from mdg.data.check.frames import Stored, stored_format
from mdg.data.reading.headers import parse_header
from mdg.data.reading.images import read_image, read_rgb, read_rgb_thermal
from mdg.data.reading.labels import read_ids
from mdg.data.reading.thermal import read_raw_thermal
from mdg.errors import DataError
from mdg.utils.limits import raise_limit

ORIENTATION = 0x0112


def error_of(action) -> str:
    with pytest.raises(DataError) as caught:
        action()
    return str(caught.value)


def photo(*shape: int) -> np.ndarray:
    """Smooth enough for lossy formats, and without any symmetry."""
    noise = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def encode(image: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def oriented(image: np.ndarray, kind: str, orientation: int, **options: object) -> bytes:
    if kind == "TIFF":
        return encode(image, kind, tiffinfo={ORIENTATION: orientation}, **options)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encode(image, kind, exif=exif, **options)


def as_seen(data: bytes) -> np.ndarray:
    """What a viewer shows, by Pillow."""
    return np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))


def put(folder: Path, data: bytes, name: str = "x.png") -> Path:
    file = folder / name
    file.write_bytes(data)
    return file


# --- orientation -------------------------------------------------------------------------------------------------

KINDS = [
    ("JPEG", {"quality": 95, "subsampling": 0}, 6),
    ("PNG", {}, 0),
    ("TIFF", {}, 0),
    ("TIFF", {"compression": "tiff_lzw"}, 0),
    ("TIFF", {"compression": "tiff_deflate", "big_tiff": True}, 0),
    ("WEBP", {"lossless": True}, 0),
]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind, options, tolerance", KINDS)
def test_colours_are_turned_as_viewers_do(tmp_path, kind, options, tolerance, orientation):
    data = oriented(photo(24, 40, 3), kind, orientation, **options)
    file = put(tmp_path, data)
    seen = as_seen(data)
    assert seen.shape == ((24, 40, 3) if orientation < 5 else (40, 24, 3))
    read = read_rgb(file)
    assert read.shape == seen.shape and np.abs(read.astype(int) - seen).max() <= tolerance
    assert stored_format(file) == Stored(*seen.shape)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_thermal_is_turned_too(tmp_path, kind, dtype, orientation):
    values = (photo(24, 40).astype(dtype) * (1 if dtype == np.uint8 else 257)).astype(dtype)
    data = oriented(values, kind, orientation)
    np.testing.assert_array_equal(read_raw_thermal(put(tmp_path, data)), as_seen(data))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("palette", [False, True])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_labels_are_turned_too(tmp_path, kind, palette, orientation):
    ids = (np.arange(240).reshape(12, 20) % 7).astype(np.uint8)
    image = Image.fromarray(ids)
    if palette:
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette([(7 * k) % 256 for k in range(48)])
    read = read_ids(put(tmp_path, oriented(image, kind, orientation)))
    np.testing.assert_array_equal(read, as_seen(oriented(ids, "PNG", orientation)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_four_channels_are_turned_and_not_multiplied(tmp_path, orientation):
    """A TIFF that calls the fourth channel transparency would lose its colours where thermal is cold."""
    packed = photo(12, 20, 4)
    data = oriented(Image.fromarray(packed, "RGBA"), "TIFF", orientation)
    rgb_HW3, thermal_HW = read_rgb_thermal(put(tmp_path, data, "x.tif"))
    np.testing.assert_array_equal(np.dstack([rgb_HW3, thermal_HW]), as_seen(data))


@pytest.mark.parametrize("value", [0, 9, 500])
def test_an_orientation_that_does_not_exist_turns_nothing(tmp_path, value):
    image = photo(24, 40, 3)
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(read_rgb(put(tmp_path, oriented(image, kind, value))), image)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0II*\0\xff\xff\0\0", b"Exif\0\0MM\0*\0\0\0\x08"]
)
def test_broken_exif_turns_nothing(tmp_path, exif):
    image = photo(24, 40, 3)
    read = read_rgb(put(tmp_path, encode(image, "JPEG", exif=exif, quality=95, subsampling=0)))
    assert np.abs(read.astype(int) - image).max() <= 6


# --- several images in one file ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_several_frames_or_pages_are_refused(tmp_path, kind):
    frames = [Image.new("RGB", (20, 10), (50 * k, 0, 0)) for k in range(3)]
    file = put(tmp_path, encode(frames[0], kind, save_all=True, append_images=frames[1:]))
    for read in (read_image, read_rgb, read_ids, read_raw_thermal):
        message = error_of(lambda read=read: read(file))
        assert f"got several pages or frames in one {kind} file, expected one image; save the one" in message
    assert stored_format(file) is None


def chained_tiff(pages: list[tuple[int, np.ndarray]]) -> bytes:
    """A TIFF of grey pages with their NewSubfileType, put together by hand."""
    data = b"II*\0" + struct.pack("<I", 8)
    for place, (subfile, image) in enumerate(pages):
        height, width = image.shape
        pixels = len(data) + 2 + 9 * 12 + 4
        tags = {254: subfile, 256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: pixels, 278: height}
        tags[279] = image.size
        following = 0 if place + 1 == len(pages) else pixels + image.size
        data += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, n) for tag, n in tags.items())
        data += struct.pack("<I", following) + image.tobytes()
    return data


def test_smaller_copies_and_masks_in_a_tiff_do_not_count(tmp_path):
    image = photo(24, 40)
    small = np.ascontiguousarray(image[::2, ::2])
    whole = chained_tiff([(0, image), (1, small), (5, small), (4, image)])
    np.testing.assert_array_equal(read_raw_thermal(put(tmp_path, whole, "x.tif")), image)
    several = put(tmp_path, chained_tiff([(0, image), (1, small), (2, image)]), "y.tif")
    assert "got several pages or frames" in error_of(lambda: read_image(several))
    reversed_ = put(tmp_path, chained_tiff([(1, small), (0, image)]), "z.tif")
    assert "its first image is a preview of another one" in error_of(lambda: read_image(reversed_))


def test_a_chain_of_pages_that_goes_round_ends(tmp_path):
    image = photo(24, 40)
    data = bytearray(chained_tiff([(0, image), (0, image)]))
    second = 8 + 2 + 9 * 12 + 4 + image.size
    struct.pack_into("<I", data, second + 2 + 9 * 12, 8)
    assert "got several pages" in error_of(lambda: read_image(put(tmp_path, bytes(data), "x.tif")))


def test_previews_in_a_jpeg_do_not_count(tmp_path):
    small, large = photo(12, 16, 3), photo(48, 64, 3)
    data = encode(large, "JPEG", quality=95, subsampling=0)
    segment = b"\xff\xe2" + struct.pack(">H", 2 + len(preview := encode(small, "JPEG"))) + preview
    for content in (data[:2] + segment + data[2:], data + preview, data + b"\0" * 500):
        read = read_rgb(put(tmp_path, content))
        assert read.shape == large.shape and np.abs(read.astype(int) - large).max() <= 10
    several = encode(Image.fromarray(large), "MPO", save_all=True, append_images=[Image.fromarray(small)])
    assert read_rgb(put(tmp_path, several)).shape == large.shape
    cut = data[:2] + segment + data[2 : len(data) // 2]
    assert "truncated or damaged" in error_of(lambda: read_rgb(put(tmp_path, cut)))


# --- files that end early ----------------------------------------------------------------------------------------

WHOLE = {
    "png": lambda: encode(photo(60, 80, 3), "PNG"),
    "palette.png": lambda: encode(Image.fromarray(photo(60, 80, 3)).convert("P"), "PNG"),
    "jpg": lambda: encode(photo(60, 80, 3), "JPEG"),
    "progressive.jpg": lambda: encode(photo(60, 80, 3), "JPEG", progressive=True),
    "tif": lambda: encode(photo(60, 80, 3), "TIFF"),
    "lzw.tif": lambda: encode(photo(60, 80, 3), "TIFF", compression="tiff_lzw"),
    "cv.tif": lambda: cv2.imencode(".tif", photo(60, 80, 3))[1].tobytes(),
    "bmp": lambda: encode(photo(60, 80, 3), "BMP"),
    "palette.bmp": lambda: encode(Image.fromarray(photo(60, 80, 3)).convert("P"), "BMP"),
    "gif": lambda: encode(Image.fromarray(photo(60, 80, 3)).convert("P"), "GIF"),
    "webp": lambda: encode(photo(60, 80, 3), "WEBP", lossless=True),
    "lossy.webp": lambda: encode(photo(60, 80, 3), "WEBP"),
    "jp2": lambda: encode(photo(60, 80, 3), "JPEG2000"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_no_cut_file_gives_an_image(tmp_path, kind):
    data = WHOLE[kind]()
    file = put(tmp_path, data, f"x.{kind}")
    assert read_image(file).shape[:2] == (60, 80)
    for end in [*(len(data) * k // 21 for k in range(1, 21)), len(data) - 3]:
        file.write_bytes(data[:end])
        message = error_of(lambda: read_image(file))
        assert str(file) in message and f"({end} bytes)" in message
        assert "palette" not in kind or str(file) in error_of(lambda: read_ids(file))


@pytest.mark.parametrize("kind", ["jpg", "progressive.jpg", "png"])
def test_no_file_padded_with_zeros_gives_an_image(tmp_path, kind):
    """So look files that were to be copied and never were."""
    data = WHOLE[kind]()
    for part in range(1, 20):
        end = len(data) * part // 20
        file = put(tmp_path, data[:end] + bytes(len(data) - end), f"x.{kind}")
        assert "truncated or damaged" in error_of(lambda file=file: read_image(file))


@pytest.mark.parametrize("kind", WHOLE)
def test_the_header_is_that_of_the_image(kind):
    header = parse_header(WHOLE[kind]())
    assert (header.height, header.width, header.orientation, header.images) == (60, 80, 1, 1)
    assert header.complete and not header.preview and header.palette == (kind.startswith("palette") or kind == "gif")
    assert header.lossy == (kind in ("jpg", "progressive.jpg", "lossy.webp"))


@pytest.mark.parametrize("kind", WHOLE)
def test_any_garbage_after_a_signature_is_an_error_of_data(tmp_path, kind):
    data, rng = WHOLE[kind](), np.random.default_rng(1)
    for _ in range(40):
        changed = bytearray(data)
        for place in rng.integers(4, min(len(data), 400), 3):
            changed[place] = rng.integers(256)
        file = put(tmp_path, bytes(changed), f"x.{kind}")
        for read in (read_image, read_ids):
            try:
                read(file)
            except DataError as error:
                assert str(file) in str(error)


# --- limits ------------------------------------------------------------------------------------------------------


def png_header(height: int, width: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 3, 0, 0, 0) + bytes(20)


@pytest.mark.parametrize("read", [read_image, read_ids, read_rgb, read_raw_thermal])
def test_pixels_are_counted_before_any_is_decoded(tmp_path, read):
    file = put(tmp_path, png_header(16384, 16384))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = error_of(lambda: read(file))
    assert f"{file}: got 268,435,456 pixels" in message and "--limit image_pixels=268435456" in message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000"])
def test_a_limit_can_be_lowered_and_raised(tmp_path, monkeypatch, kind):
    image = Image.fromarray(photo(60, 80))
    file = put(tmp_path, encode(image, kind))
    monkeypatch.setenv("MDG_LIMIT_IMAGE_PIXELS", "4799")
    assert "got 4,800 pixels of an image" in error_of(lambda: read_image(file))
    raise_limit("image_pixels=4800")
    assert read_image(file).shape[:2] == (60, 80)


def test_large_palette_images_are_no_warning(tmp_path, monkeypatch):
    """Pillow has a limit of its own, far below the one here."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    file = put(tmp_path, WHOLE["palette.png"]())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_ids(file).shape == (60, 80)


def test_bytes_are_limited_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("MDG_LIMIT_IMAGE_BYTES", "1000")
    file = put(tmp_path, WHOLE["png"]())
    assert f"{file}: got {file.stat().st_size:,} bytes of an image file" in error_of(lambda: read_image(file))
    film = put(tmp_path, b"\0\0\0\x18ftypisom" + bytes(2000), "film.mp4")
    assert "it is a video" in error_of(lambda: read_image(film))


def test_no_pipe_or_device_is_read():
    assert "no regular file" in error_of(lambda: read_image(Path("/dev/zero")))


BUSY = {
    "segments": b"\xff\xd8\xff" + b"\xff" * 4_000_000,
    "stray bytes": b"\xff\xd8\xff\xe0\0\x02" + bytes(4_000_000),
    "chunks": b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 9, 9, 8, 0, 0, 0, 0) + bytes(40_000_000),
    "entries": b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 1 << 60) + bytes(40_000_000),
    "numbers": b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 273, 4, 1 << 31, 8) + bytes(40_000_000),
}


@pytest.mark.parametrize("name", BUSY)
def test_a_header_keeps_nobody_busy(name):
    header = parse_header(BUSY[name])
    assert header is None or not header.complete


@pytest.mark.parametrize("read", [read_rgb, read_ids, read_raw_thermal])
def test_a_frame_larger_than_its_header_says_is_damage(tmp_path, read):
    """Pillow's own bomb error for a GIF of 7x9 pixels, whose frame has 65535x65535, never comes out."""
    screen, frame = struct.pack("<HHBBB", 7, 9, 0x80, 0, 0), struct.pack("<BHHHHB", 0x2C, 0, 0, 65535, 65535, 0)
    (tmp_path / "a.gif").write_bytes(b"GIF87a" + screen + bytes(6) + frame + b"\x02\x02\x44\x01\x00;")
    with pytest.raises(DataError, match="a.gif: not a readable image .*GIF"):
        read(tmp_path / "a.gif")


FAR = b"\xc7" * 8  # a place of 64 bits, as no file has it
SEEKS_FAR = base64.b64decode(  # a JPEG 2000 with a box larger than any file, found by the fuzzer
    "AAAADGpQICANCocKAAAAFGZ0eXBqYHAyIAAAAACQAAoAAAABAACkAP+Tz/wwNAjpEfI/FGZ0eXBqYHAyIAAAAACQAAoAAAAAAKQA"
    "Af+Tz/wwNAjpEfI/zLB46m9VRcyweOpvVUU/wP8AMrgf4CID/AOAEDJTSq6mHovoi+8LRXeQ0FU3ZeWKAz9PTmr25TpZFL//2Q=="
)


@pytest.mark.parametrize(
    "data",
    [
        b"II+\0\x08\0\0\0" + FAR,  # the first directory
        b"MM\0+\0\x08\0\0" + FAR,
        b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 1) + struct.pack("<HHQ", 258, 3, 9) + FAR + bytes(8),  # its values
        b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 0) + FAR,  # the next one
        SEEKS_FAR,
    ],
    ids=["first", "first of another order", "values", "next", "JPEG 2000"],
)
@pytest.mark.parametrize("read", [read_rgb, read_raw_thermal, read_ids])
def test_places_beyond_any_file_are_an_error_of_data(tmp_path, read, data):
    file = tmp_path / "far.png"
    file.write_bytes(data)
    assert str(file) in error_of(lambda: read(file))
