"""Checkpoints: of other programs, cut off, with content of the wrong kind below a digest that is right."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from reliability.inputs.kit import Bad, Kit
from reliability.runs import load

WHAT = "checkpoints"
USES = ("eval", "infer", "resume")
KEYS = (
    "model", "ema", "optimizer", "scaler", "meter", "config", "progress", "mdg_version", "classes", "palette",
    "trained_on", "selected_on", "world_size", "format",
)  # fmt: skip
NEEDED = {"eval": ("model", "config", "progress", "classes"), "infer": ("model", "config", "classes")}


class Bomb:
    """An object whose unpickling runs code."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("code-was-run"),))


FILES: dict[str, Callable[[Path], Any]] = {
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("hello\n"),
    "html": lambda file: file.write_text("<!DOCTYPE html><html><body>not found</body></html>"),
    "zeros": lambda file: file.write_bytes(bytes(100_000)),
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "last-byte-lost": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "bit-flipped": lambda file: file.write_bytes((b := file.read_bytes())[:5000] + bytes([b[5000] ^ 4]) + b[5001:]),
    "folder": lambda file: (file.unlink(), file.mkdir()),
    "zip-of-text": lambda file: _zip(file, {"a.txt": b"hello"}),
    "zip-without-data": lambda file: _zip(file, {"archive/data.pkl": b""}),
    "zip-of-garbage": lambda file: _zip(file, {"archive/data.pkl": b"garbage", "archive/version": b"3"}),
    "plain-pickle": lambda file: file.write_bytes(pickle.dumps({"format": 1, "model": {}})),
    "pickled-code": lambda file: file.write_bytes(pickle.dumps(Bomb())),
    "saved-code": lambda file: torch.save({"format": 1, "model": Bomb()}, file),
    "saved-module": lambda file: torch.save(torch.nn.Linear(2, 2), file),
    "saved-list": lambda file: torch.save([1, 2], file),
    "saved-tensor": lambda file: torch.save(torch.zeros(3), file),
    "saved-empty": lambda file: torch.save({}, file),
    "state-dict": lambda file: torch.save(torch.nn.Linear(2, 2).state_dict(), file),
    "format-and-model": lambda file: torch.save({"format": 1, "model": {}}, file),
    "format-of-the-future": lambda file: torch.save({"format": 99, "model": {}}, file),
    "format-is-text": lambda file: torch.save({"format": "1", "model": {}}, file),
}
VALUES: dict[str, Any] = {
    "none": None,
    "int": 3,
    "text": "x\0",
    "list": [1],
    "nested": {"x": {"y": [1]}},
    "tensor": torch.zeros(2),
}


# Of use all the same: what other versions leave out or add, and numbers that are right for some run.
ALL_RIGHT = {
    f"{use}-{what}"
    for use in USES
    for what in (
        "progress-unknown-key", "progress-beyond", "scaler-nested", "trained_on-absent", "selected_on-absent",
        "world_size-int", "optimizer-state-empty",
    )
}  # fmt: skip


def bad_inputs(kit: Kit) -> Iterator[Bad]:
    """All cases, each with the exit codes that answer it."""
    for bad in _cases():
        yield bad._replace(codes=(0, *bad.codes)) if bad.name in ALL_RIGHT else bad


def _cases() -> Iterator[Bad]:
    """Every file for every use; contents with a key removed or replaced; a few deeper ones."""
    for use in USES:
        for name, damage in FILES.items():
            yield Bad(f"{use}-{name}", partial(_use, use, damage))
        for key in KEYS:
            if use == "resume" or key in NEEDED[use]:
                yield Bad(f"{use}-{key}-absent", partial(_use, use, partial(_change, key=key, value=KEYS)))
                for what, value in VALUES.items():
                    if not (what == "none" and key in ("ema", "selected_on", "trained_on")):
                        yield Bad(f"{use}-{key}-{what}", partial(_use, use, partial(_change, key=key, value=value)))
        for name, change in DEEPER.items():
            if use == "resume" or not name.startswith("optimizer"):
                key = "config" if name.startswith("config") else None
                yield Bad(f"{use}-{name}", partial(_use, use, partial(_change, key=key, value=change)))


def _set(path: str, value: Any) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        *outer, last = path.split(".")
        for key in outer:
            content = content[key]
        content[last] = value

    return change


def _model(change: Callable[[torch.Tensor], Any]) -> Callable[[dict], None]:
    return lambda content: content.update(model={name: change(value) for name, value in content["model"].items()})


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{c}: &{c} [{', '.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
)
DEEPER: dict[str, Callable[[dict], None]] = {
    "model-of-nan": _model(lambda t: t * float("nan") if t.is_floating_point() else t),
    "model-of-other-shape": _model(lambda t: t[None]),
    "model-of-complex": _model(lambda t: t.to(torch.complex64)),
    "model-of-numbers": _model(lambda t: 3),
    "model-sparse": _model(lambda t: t.to_sparse() if t.dim() else t),
    "model-renamed": lambda content: content.update(model={f"x.{k}": v for k, v in content["model"].items()}),
    "config-laughs": _set("config", LAUGHS),
    "config-deep": _set("config", "a: " + "[" * 3000),
    "config-nul": _set("config", "a: \0"),
    "config-list": _set("config", "- a"),
    "config-imports": _set("config", "custom_imports: [antigravity]\n"),
    "config-imports-int": _set("config", "custom_imports: 3\n"),
    "config-import-int": _set("config", "custom_imports: [3]\n"),
    "progress-unknown-key": _set("progress.x", 1),
    "progress-text": _set("progress.step", "many"),
    "progress-negative": _set("progress.step", -5),
    "progress-of-none": _set("progress.epoch", None),
    "progress-beyond": _set("progress.batch", 10**9),
    "classes-long": _set("classes", ["x" * 10_000_000]),
    "classes-of-numbers": _set("classes", [1, 2]),
    "optimizer-empty": _set("optimizer", {}),
    "optimizer-state-empty": _set("optimizer.state", {}),
    "optimizer-groups-int": _set("optimizer.param_groups", 3),
    "optimizer-groups-empty": _set("optimizer.param_groups", []),
}


def _change(file: Path, key: str | None, value: Any) -> None:
    """Writes the content anew: with ``value`` under ``key``, without the key where value is KEYS, or changed by a
    function of the content."""
    content = load(file)
    if callable(value):
        value(content)
    elif value is KEYS:
        content.pop(key, None)
    else:
        content[key] = value
    _save(file, content)


def _save(file: Path, content: dict) -> None:
    from mdg.engine.checkpoint import FORMAT, save_checkpoint

    try:
        save_checkpoint(file, {key: value for key, value in content.items() if key != "format"})
    except Exception:  # the writer itself refuses some of these contents
        torch.save(content, file)
    if type(content.get("format")) is not int or content["format"] != FORMAT:
        torch.save(content, file)


def _zip(file: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _reads_config(damage: Callable) -> bool:
    """Whether the tool must read the configuration inside the checkpoint; else it is given one, which comes first."""
    return getattr(damage, "keywords", {}).get("key") == "config"


def _use(use: str, damage: Callable[[Path], Any], kit: Kit, folder: Path) -> tuple[str, list]:
    if use == "resume":
        run = folder / "run"
        shutil.copytree(kit.run, run)
        (run / "checkpoints" / "previous.pt").unlink(missing_ok=True)
        damage(run / "checkpoints" / "last.pt")
        return "tools/train.py", ["--resume", run, "--opts", "train.stop_epoch=3"]
    file = folder / "best.pt"
    shutil.copy(kit.run / "checkpoints" / "best.pt", file)
    damage(file)
    config = [] if _reads_config(damage) else ["--config", kit.lab.config]
    if use == "eval":
        return "tools/val_mm.py", ["--checkpoint", file, *config, "--out", folder / "out"]
    image = kit.dataset(folder)[0] / "train" / "rgb" / "00.png"
    thermal = folder / "data" / "train" / "thermal" / "00.png"
    return "tools/infer_mm.py", [
        "--rgb",
        image,
        "--thermal",
        thermal,
        "--checkpoint",
        file,
        *config,
        "--out",
        folder / "out",
    ]
