"""Archives and folders for scripts/prepare_*.py."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from reliability.inputs.kit import Bad, Kit

WHAT = "archives"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(60)


def _zip(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _tar(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return stream.getvalue()


def _bomb() -> bytes:
    """A list of frames of 2.5 GB of zeros in a few MB."""
    stream, block = io.BytesIO(), bytes(1 << 24)
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("MFNet/train.txt", "w", force_zip64=True) as file,
    ):
        for _ in range(150):
            file.write(block)
    return stream.getvalue()


def _encrypted() -> bytes:
    """The flag that says a member has a password, set in both of its headers."""
    data = bytearray(_zip({"MFNet/train.txt": b"00001D\n", "MFNet/images/00001D.png": PNG}))
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = data.find(mark)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(mark, at + 4)
    return bytes(data)


LISTED = {"MFNet/train.txt": b"00001D\n", "MFNet/val.txt": b"00002D\n", "MFNet/test.txt": b"00003D\n"}
SMALL = _zip({**LISTED, **{f"MFNet/images/0000{n}D.png": PNG for n in (1, 2, 3)}})
ARCHIVES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "empty": ("a.zip", lambda: b""),
    "html": ("a.zip", lambda: b"<!DOCTYPE html><html><title>Quota exceeded</title></html>"),
    "html-tar": ("a.tar.gz", lambda: b"<!DOCTYPE html><html></html>"),
    "text": ("a.tar", lambda: b"hello\n"),
    "rar": ("a.rar", lambda: b"Rar!\x1a\x07\0" + bytes(100)),
    "seven-zip": ("a.7z", lambda: b"7z\xbc\xaf'\x1c" + bytes(100)),
    "rar-named-zip": ("a.zip", lambda: b"Rar!\x1a\x07\0" + bytes(100)),
    "zip-named-tar": ("a.tar", lambda: SMALL),
    "tar-named-zip": ("a.zip", lambda: _tar({"a.txt": b"hello"})),
    "half": ("a.zip", lambda: SMALL[: len(SMALL) // 2]),
    "directory-lost": ("a.zip", lambda: SMALL[:-40]),
    "bit-flipped": ("a.zip", lambda: SMALL[:50] + bytes([SMALL[50] ^ 255]) + SMALL[51:]),
    "no-images": ("a.zip", lambda: _zip(LISTED)),
    "damaged-images": ("a.zip", lambda: SMALL),
    "nothing-known": ("a.zip", lambda: _zip({"a.txt": b"hello"})),
    "no-members": ("a.zip", lambda: _zip({})),
    "encrypted": ("a.zip", _encrypted),
    "list-bomb": ("a.zip", _bomb),
    "gzip-bomb": ("a.tar.gz", lambda: gzip.compress(bytes(300_000_000), 1)),
    "tar-half": ("a.tar", lambda: _tar({"MFNet/train.txt": b"x" * 5000})[:2000]),
    "gzip-half": ("a.tgz", lambda: gzip.compress(_tar({"MFNet/train.txt": b"00001D\n" * 500}))[:60]),
    "traversal-zip": ("a.zip", lambda: _zip({"../../outside.txt": b"x", "/tmp/outside.txt": b"x"})),
    "traversal-tar": ("a.tar", lambda: _tar({"../../outside.txt": b"x"}, {"MFNet/images": "/etc"})),
    "link-out": ("a.tar", lambda: _tar(LISTED, {"MFNet/images/00001D.png": "/etc/passwd"})),
    "nul-in-name": ("a.tar", lambda: _tar({"MFNet/a\0b.txt": b"x"})),
    "long-names": ("a.zip", lambda: _zip({"x" * 5000 + "/train.txt": b"x"})),
    "names-not-utf-8": ("a.tar", lambda: _tar({"MFNet/\udcd6\udcd0.png": PNG, **LISTED})),
    "deep": ("a.zip", lambda: _zip({"/".join("d" * 2000) + "/train.txt": b"x"})),
}
DESTINATIONS = {"below-a-file": "file/x", "a-file": "file", "proc": "/proc/x", "long": "x" * 300, "inside": "source/x"}
SCRIPTS = ("mfnet", "pst900", "fmb")


def bad_inputs(kit: Kit) -> Iterator[Bad]:
    """Every archive for one of the scripts, in turn; places to write to that cannot be."""
    for number, (name, (file, make)) in enumerate(ARCHIVES.items()):
        script = SCRIPTS[0] if "MFNet" in name or number % 3 == 0 else SCRIPTS[number % 3]
        yield Bad(
            f"{script}-{name}", partial(_archive, script, file, make), (0, 2, 3) if name == "damaged-images" else (2, 3)
        )
    for name, destination in DESTINATIONS.items():
        yield Bad(f"mfnet-destination-{name}", partial(_destination, destination))
    for name in ("nothing", "nothing.zip", "x" * 300, "/dev/zero", "pipe", "loop"):
        yield Bad(f"fmb-source-{name[:12].replace('/', '_')}", partial(_source, name))


def _archive(script: str, name: str, make: Callable[[], bytes], kit: Kit, folder: Path) -> tuple[str, list]:
    (folder / name).write_bytes(make())
    return f"scripts/prepare_{script}.py", [folder / name, folder / "out"]


def _destination(name: str, kit: Kit, folder: Path) -> tuple[str, list]:
    (folder / "file").write_text("hello\n")
    (folder / "source").mkdir()
    for member, content in LISTED.items():
        (folder / "source" / Path(member).name).write_bytes(content)
    return "scripts/prepare_mfnet.py", [folder / "source", folder / name]


def _source(name: str, kit: Kit, folder: Path) -> tuple[str, list]:
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    return "scripts/prepare_fmb.py", [folder / name, folder / "out"]
