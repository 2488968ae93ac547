"""Image and label files: for tools/infer_mm.py, and in a data set for tools/check_data.py and tools/train.py."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from reliability.inputs.kit import SIZE, Bad, Kit

WHAT = "images and labels"


def _encoded(pixels: np.ndarray, kind: str, mode: str | None = None, **options) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(stream, kind, **options)
    return stream.getvalue()


GREY = np.arange(SIZE[0] * SIZE[1], dtype=np.uint8).reshape(SIZE)
RGB = np.dstack([GREY, GREY.T.reshape(SIZE), GREY[::-1]])
PNG, JPEG, TIFF = _encoded(RGB, "PNG"), _encoded(RGB, "JPEG"), _encoded(RGB, "TIFF")


def _png(width: int, height: int, depth: int = 8, colour: int = 2, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


BYTES: dict[str, bytes] = {
    "empty": b"",
    "one-byte": b"\x89",
    "text": b"hello\n",
    "html": b"<!DOCTYPE html><html></html>",
    "zeros": bytes(5000),
    "pointer-of-git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "video-mp4": b"\0\0\0\x20ftypisom" + bytes(200),
    "video-avi": b"RIFF\0\1\0\0AVI LIST" + bytes(200),
    "pdf": b"%PDF-1.4\n" + bytes(200),
    "heic": b"\0\0\0\x18ftypheic" + bytes(200),
    "matlab": b"MATLAB 5.0 MAT-file" + bytes(200),
    "numpy": b"\x93NUMPY\1\0" + bytes(200),
    "zip": b"PK\3\4" + bytes(200),
    "png-half": PNG[: len(PNG) // 2],
    "png-header-only": PNG[:33],
    "png-last-chunk-lost": PNG[:-12],
    "png-bit-flipped": PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:],
    "png-of-no-pixels": _png(0, 0),
    "png-bomb": _png(60_000, 60_000, data=bytes(1_000_000)),
    "png-largest": _png(2**31 - 1, 2**31 - 1),
    "png-without-data": _png(40, 32),
    "png-depth-3": _png(40, 32, depth=3),
    "jpeg-half": JPEG[: len(JPEG) // 2],
    "jpeg-mark-only": b"\xff\xd8",
    "jpeg-end-lost": JPEG[:-200],
    "tiff-half": TIFF[: len(TIFF) // 2],
    "tiff-mark-only": b"II*\0\x08\0\0\0",
    "tiff-in-circle": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
    "bmp-short": b"BM" + bytes(60),
    "gif": _encoded(GREY, "GIF"),
    "two-pages": _encoded(GREY, "TIFF", save_all=True, append_images=[Image.fromarray(GREY)]),
    "two-channels": _encoded(RGB, "PNG", mode="LA"),
    "float": _encoded(GREY.astype(np.float32) * np.float32("nan"), "TIFF"),
    "other-size": _encoded(RGB[:20, :10], "PNG"),
    "turned": _encoded(RGB, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"),
}
ANY = (0, 1, 2, 3)


def bad_inputs(kit: Kit) -> Iterator[Bad]:
    """Every file as RGB, thermal and label of a data set, and as a pair's image."""
    for name, content in BYTES.items():
        for part in ("rgb", "thermal", "labels"):
            # What one reader rightly refuses another rightly takes (a turned picture, two pages): here no code is
            # wrong, but tracebacks, crashes and endless memory are.
            yield Bad(f"check-{part}-{name}", partial(_check, part, content), ANY)
        yield Bad(f"infer-{name}", partial(_infer, content), ANY)
        yield Bad(f"train-{name}", partial(_train, content), ANY)
    for name, harm in FOLDERS.items():
        yield Bad(f"check-{name}", partial(_harmed, harm), ANY)


def _check(part: str, content: bytes, kit: Kit, folder: Path) -> tuple[str, list]:
    root, config = kit.dataset(folder)
    (root / "train" / part / "01.png").write_bytes(content)
    return "tools/check_data.py", [config, "--workers", 1, "--html", folder / "page.html"]


def _train(content: bytes, kit: Kit, folder: Path) -> tuple[str, list]:
    root, config = kit.dataset(folder)
    (root / "train" / "rgb" / "01.png").write_bytes(content)
    return "tools/train.py", [config, "--run-dir", folder / "run", "--opts", "train.epochs=1"]


def _infer(content: bytes, kit: Kit, folder: Path) -> tuple[str, list]:
    for part in ("rgb", "thermal"):
        (folder / part).mkdir()
        (folder / part / "a.png").write_bytes(content)
    checkpoint = ["--checkpoint", kit.run / "checkpoints" / "best.pt", "--config", kit.lab.config]
    return "tools/infer_mm.py", ["--rgb", folder / "rgb", "--thermal", folder / "thermal", *checkpoint]


def _harmed(harm: Callable[[Path], object], kit: Kit, folder: Path) -> tuple[str, list]:
    root, config = kit.dataset(folder)
    harm(root)
    return "tools/check_data.py", [config, "--workers", 1]


def _loop(root: Path) -> None:
    (root / "train" / "rgb" / "loop").symlink_to(root)


FOLDERS: dict[str, Callable[[Path], object]] = {
    "link-loop": _loop,
    "link-to-nothing": lambda root: (root / "train" / "rgb" / "09.png").symlink_to("nothing"),
    "link-to-itself": lambda root: (root / "train" / "rgb" / "09.png").symlink_to("09.png"),
    "folder-as-image": lambda root: (root / "train" / "rgb" / "09.png").mkdir(),
    "pipe-as-image": lambda root: os.mkfifo(root / "train" / "rgb" / "09.png"),
    "name-not-utf-8": lambda root: [
        (root / "train" / part / "\udcd6\udcd0.png").write_bytes((root / "train" / part / "00.png").read_bytes())
        for part in ("rgb", "thermal", "labels")
    ],
    "name-with-newline": lambda root: (root / "train" / "rgb" / "a\nb.png").write_bytes(PNG),
    "name-with-brackets": lambda root: (root / "train" / "rgb" / "[red].png").write_bytes(PNG),
    "no-labels": lambda root: [file.unlink() for file in (root / "train" / "labels").iterdir()],
    "no-split": lambda root: (root / "train").rename(root / "elsewhere"),
    "labels-255": lambda root: (root / "train" / "labels" / "00.png").write_bytes(_encoded(GREY * 0 + 255, "PNG")),
    "labels-jpeg": lambda root: (root / "train" / "labels" / "00.png").rename(root / "train" / "labels" / "00.jpg"),
    "two-suffixes": lambda root: (root / "train" / "rgb" / "00.jpg").write_bytes(JPEG),
}
