"""What a fuzzer does with bytes, for each reader of strangers' files; and good inputs to start from."""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from mdg.errors import UserError
from reliability.runs import CONFIG

INSTRUMENTED = ("mdg.config", "mdg.data", "mdg.engine", "mdg.models", "mdg.utils")
SEED = 0


@cache
def _place() -> Path:
    folder = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # a file per input: not through a disk
    return Path(tempfile.mkdtemp(prefix="mdg-fuzz-", dir=folder))


def _file(name: str, data: bytes) -> Path:
    file = _place() / name
    file.write_bytes(data)
    return file


def _yaml(data: bytes) -> None:
    from mdg.config import load_config

    load_config(_file("fuzzed.yaml", data))


def _opts(data: bytes) -> None:
    from mdg.config import load_config

    file = _place() / "base.yaml"
    if not file.exists():
        file.write_text(CONFIG.replace("custom_imports: [reliability.tiny]\n", "").replace("TinySegmentor", "MDG"))
    load_config(file, data.decode("utf-8", "surrogateescape").split("\n"))


def _checkpoint(data: bytes) -> None:
    from mdg.engine.checkpoint import load_checkpoint

    load_checkpoint(_file("fuzzed.pt", data), training=True)


def _weights(data: bytes) -> None:
    from mdg.models.weight_files import read_tensors

    read_tensors(_file("fuzzed.pth", data))


def _list(data: bytes) -> None:
    from mdg.data.datasets.patterns import read_list
    from mdg.data.reading.files import read_split

    file = _file("fuzzed.txt", data)
    read_split(file.parent, file.stem)
    read_list(file, file.parent, None)


def _results(data: bytes) -> None:
    from mdg.engine.evaluation.result_files import read_result

    result = read_result(_file("results.json", data))
    assert result.scores is not None and result.class_scores is not None and result.setting_key


def _image(data: bytes) -> None:
    from mdg.data.reading.images import read_rgb

    read_rgb(_file("fuzzed.png", data))


def _thermal(data: bytes) -> None:
    from mdg.data.reading.images import read_image

    read_image(_file("fuzzed.tif", data))


def _label(data: bytes) -> None:
    from mdg.data.reading.labels import IdLabels

    IdLabels(9)(_file("label.png", data))


def _archive(data: bytes) -> None:
    from mdg.data.prepare.archives import open_source

    source = open_source(_file("fuzzed.zip" if data[:1] == b"P" else "fuzzed.tar", data))
    for entry in source.entries:
        source.read_list(entry)


def _good_images() -> list[bytes]:
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(SEED)
    rgb, grey = draw.integers(0, 256, (9, 7, 3), dtype=np.uint8), draw.integers(0, 9, (9, 7), dtype=np.uint8)
    found = []
    for pixels in (rgb, grey, grey.astype(np.uint16) * 999):
        for kind in ("PNG", "TIFF", "JPEG", "BMP", "WEBP", "GIF", "JPEG2000"):
            stream = io.BytesIO()
            with contextlib.suppress(OSError, ValueError, TypeError):  # not every format has every depth
                Image.fromarray(pixels).save(stream, kind)
                found.append(stream.getvalue())
    stream = io.BytesIO()
    image = Image.fromarray(grey)
    image.putpalette(draw.bytes(768))
    image.save(stream, "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    Image.fromarray(rgb).save(turned, "JPEG", exif=exif)
    return [*found, stream.getvalue(), turned.getvalue()]


def _good_checkpoints() -> list[bytes]:
    import torch

    from mdg.engine.checkpoint import save_checkpoint

    file = _place() / "good.pt"
    progress = {"epoch": 1, "batch": 0, "step": 3, "best_score": 0.5, "best_epoch": 1}
    save_checkpoint(
        file,
        {
            "model": {"weight": torch.ones(2, 2)},
            "ema": None,
            "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
            "scaler": {},
            "meter": {"sums": {}, "count": 0},
            "config": CONFIG,
            "progress": progress,
            "mdg_version": "0",
            "classes": ["a", "b"],
            "palette": [[0, 0, 0], [1, 1, 1]],
            "trained_on": None,
            "selected_on": None,
            "world_size": 1,
        },
    )
    plain = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, plain)
    old = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, old, _use_new_zipfile_serialization=False)
    return [file.read_bytes(), plain.getvalue(), old.getvalue()]


def _good_archives() -> list[bytes]:
    from reliability.inputs.archives import SMALL, _tar

    return [SMALL, _tar({"a/train.txt": b"00\n"}, {"a/link": "train.txt"})]


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]] = {
    "yaml": (
        _yaml,
        lambda: [CONFIG.encode(), b"_base_: fuzzed.yaml\n", b"a: &a [*a, 1e-4, .nan, 0x1, ~, !!set {b}]\n"],
    ),
    "opts": (_opts, lambda: [b"train.epochs=2", b"data={type: Synthetic}\npipeline.train.0.p=.5", b"name=a"]),
    "checkpoint": (_checkpoint, _good_checkpoints),
    "weights": (_weights, _good_checkpoints),
    "list": (_list, lambda: [b"00\n01\n", "a\tb\tc\n".encode("utf-16"), b"a\\b.png c\r\n"]),
    "results": (_results, lambda: [b'{"format": 2, "protocol": {}, "rules": {"A": {"scores": {"mIoU": 1}}}}']),
    "image": (_image, _good_images),
    "thermal": (_thermal, _good_images),
    "label": (_label, _good_images),
    "archive": (_archive, _good_archives),
}


def try_input(name: str, data: bytes) -> None:
    """Gives the bytes to a reader. UserError is what it may raise; all else comes out."""
    with contextlib.suppress(UserError):
        TARGETS[name][0](data)


def corpus(name: str, folder: Path) -> None:
    """Writes good inputs, where the folder has none."""
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        for number, data in enumerate(TARGETS[name][1]()):
            (folder / f"good{number}").write_bytes(data)


def run_worker(name: str, folder: Path, seconds: int, largest: int, per_input: int, megabytes: int) -> None:
    """Tries inputs for so long in this process, which ends with the first one that is answered wrongly."""
    try:
        import atheris
    except ImportError:
        _mutate_blindly(name, folder, seconds, largest, per_input, megabytes)
        return
    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        corpus(name, folder / "corpus")  # imports what is to be watched
        for data in TARGETS[name][1]():
            try_input(name, data)
    arguments = [
        sys.argv[0], f"-max_total_time={seconds}", f"-max_len={largest}", f"-timeout={per_input}", "-seed=1",
        f"-rss_limit_mb={megabytes}", f"-artifact_prefix={folder}/", "-print_final_stats=1", str(folder / "corpus"),
    ]  # fmt: skip

    def one_input(data: bytes) -> None:
        try:
            try_input(name, data)
        except BaseException:  # kept by ourselves too: the fuzzer may be ended by its own alarm before it does so
            (folder / f"found-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)
            raise

    atheris.Setup(arguments, one_input)
    atheris.Fuzz()


def _mutate_blindly(name: str, folder: Path, seconds: int, largest: int, per_input: int, megabytes: int) -> None:
    size = megabytes << 20
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + size, held + size))
    good, draw, end = TARGETS[name][1](), random.Random(SEED), time.monotonic() + seconds
    file, tried = folder / f"input-{SEED}", 0
    while time.monotonic() < end:
        data = mutated(draw, good)[:largest]
        file.write_bytes(data)  # stays where the process itself is lost
        signal.alarm(per_input)
        try_input(name, data)
        signal.alarm(0)
        tried += 1
    file.unlink(missing_ok=True)
    print(f"{tried} inputs")
    sys.exit(0)


def mutated(draw: random.Random, good: list[bytes]) -> bytes:
    """One of the good inputs with bits flipped, bytes set, parts removed, repeated, or taken from another one."""
    data = bytearray(draw.choice(good))
    for _ in range(draw.randint(1, 8)):
        at, length = draw.randrange(len(data) + 1), draw.randint(1, 16)
        match draw.randrange(5):
            case 0 if at < len(data):
                data[at] ^= 1 << draw.randrange(8)
            case 1 if at < len(data):
                data[at] = draw.choice((0, 1, 127, 128, 255, *b"\n:{}[]&*!'\"#-0"))
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length] * draw.randint(1, 4)
            case 4:
                other = draw.choice(good)
                begin = draw.randrange(len(other) + 1)
                data[at : at + length] = other[begin : begin + length]
    return bytes(data)
