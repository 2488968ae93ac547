"""Files that are no images: the message says what they are, by their bytes before their suffix."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mdg.data.reading.images import read_image
from mdg.data.reading.not_images import SIGNATURES, describe_foreign, image_kind
from mdg.errors import DataError

FOREIGN = {
    "clip.mp4": (b"\0\0\0\x20ftypisom\0\0\2\0" + bytes(range(256)), "it is a video (MP4 or QuickTime); take single"),
    "clip.png": (b"\0\0\0\x14ftypqt  " + bytes(40), "it is a video (MP4 or QuickTime)"),
    "clip.avi": (b"RIFF\0\0\1\0AVI LIST", "it is a video (AVI)"),
    "rec.seq": (b"\x01\x02\x03\x04" * 50, "it is a recording of a thermal camera, by its suffix; export its frames"),
    "rec.jpg": (b"FFF\0" + bytes(60), "it is a recording of a FLIR camera"),
    "sound.wav": (b"RIFF\x24\0\0\0WAVEfmt ", "it is a sound"),
    "page.png": (b"\n<!DOCTYPE html><title>404</title>", "it is a web page, perhaps the message of a download"),
    "list.txt": ("grün\n".encode() * 3000, "it is text"),
    "lfs.png": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "it is a pointer of Git LFS in place of the file; get the file with git lfs pull",
    ),
    "photo.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1", "it is a HEIC photo; convert it to PNG"),
    "data.npy": (b"\x93NUMPY\1\0", "it is a NumPy array"),
    "images.png": (b"PK\x03\x04\x14\0", "it is a ZIP archive"),
    "lost.png": (bytes(5000), "it begins with zeros only, as a copy that was never finished does"),
    "empty.png": (b"", "it is empty; copy it again"),
    "x.bin": (bytes(range(128, 256)) * 9, "it begins as none of the formats read here (PNG, JPEG, TIFF, BMP"),
    "cut.jpg": (b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG file, truncated or damaged; copy it again"),
    "cut.webp": (b"RIFF\x24\0\0\0WEBPVP8 ", "a WebP file, truncated or damaged; copy it again"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_the_message_says_what_the_file_is(tmp_path, name):
    content, sentence = FOREIGN[name]
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_image(file)
    assert str(caught.value).startswith(f"{file}: not a readable image ({len(content)} bytes): {sentence}")


def test_no_image_is_taken_for_something_else():
    for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "JPEG2000"):
        stream = io.BytesIO()
        Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(stream, kind)
        head = stream.getvalue()[:64]
        assert describe_foreign(head, ".mp4") is None and image_kind(head) is not None


def test_a_letter_cut_at_the_end_is_text_still():
    assert describe_foreign("grü".encode()[:-1], ".txt").startswith("it is text")


def test_signatures_differ():
    assert len({(place, mark) for place, mark, _, _ in SIGNATURES}) == len(SIGNATURES)
