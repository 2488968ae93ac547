"""Lists of frames."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from reliability.inputs.kit import NAMES, Bad, Kit

WHAT = "lists of frames"
GOOD = "".join(f"{name}\n" for name in NAMES)
ANY = (0, 1, 2, 3)
LISTS: dict[str, bytes] = {
    "empty": b"",
    "blank-lines": b"\n\n \n",
    "twice": GOOD.encode() * 2,
    "absent": b"00\nnothing\n",
    "suffixes": b"00.png\n01.png\n",
    "other-suffixes": b"00.jpg\n",
    "two-columns": b"train/rgb/00.png train/labels/00.png\n",
    "four-columns": b"a b c d\n",
    "backslashes": b"train\\rgb\\00.png\ttrain\\thermal\\00.png\ttrain\\labels\\00.png\n",
    "absolute": b"/etc/passwd\t/etc/passwd\t/etc/passwd\n",
    "outside": b"../../x\n",
    "outside-columns": b"../../../etc/passwd\t../x\t../y\n",
    "blank-in-name": b"A 000\n",
    "utf-16": GOOD.encode("utf-16"),
    "utf-16-be": GOOD.encode("utf-16-be"),
    "utf-8-with-mark": GOOD.encode("utf-8-sig"),
    "not-utf-8": b"\xd6\xd0_01\n",
    "nul": b"00\0\n",
    "only-nul": bytes(1000),
    "binary": bytes(range(256)) * 10,
    "long-line": b"x" * 5_000_000,
    "many-lines": b"00\n" * 500_000,
    "carriage-returns": b"00\r01\r",
    "json": b'["00", "01"]',
    "csv": b"rgb,thermal,label\n00,00,00\n",
    "brackets": b"[bold]00[/nothing]\n",
}


def bad_inputs(kit: Kit) -> Iterator[Bad]:
    """Every list as that of a `type: Folder` data set and as that of MFNet."""
    for name, content in LISTS.items():
        yield Bad(f"folder-{name}", partial(_folder, content), ANY)
        yield Bad(f"mfnet-{name}", partial(_mfnet, content), ANY)
    for name in ("nothing.txt", ".", "/dev/null", "x" * 300, "a\0b", "../list.txt"):
        yield Bad(f"file {name[:12]!r}", partial(_named, name), ANY)


def _folder(content: bytes, kit: Kit, folder: Path) -> tuple[str, list]:
    root, config = kit.dataset(folder, split_file="{split}.txt")
    for split in ("train", "test"):
        (root / f"{split}.txt").write_bytes(content)
    return "tools/check_data.py", [config, "--workers", 1]


def _named(name: str, kit: Kit, folder: Path) -> tuple[str, list]:
    _, config = kit.dataset(folder, split_file=name)
    return "tools/check_data.py", [config, "--workers", 1]


def _mfnet(content: bytes, kit: Kit, folder: Path) -> tuple[str, list]:
    root, _ = kit.dataset(folder)
    (root / "images").mkdir()
    for split in ("train", "val", "test"):
        (root / f"{split}.txt").write_bytes(content)
    config = kit.config(folder, data={"type": "MFNet", "root": str(root)})
    return "tools/check_data.py", [config, "--workers", 1]
