"""Damaged files: every file of a run is cut off, has bits flipped, is zeroed, lengthened, removed, made a folder.

A resume must then go on exactly (from an older state where the newest is damaged) or end with one line. What it never
may do is to go on silently from other weights. Records of the metrics that the damage destroyed are gone.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from reliability import process
from reliability.kills import TENSORBOARD, stopped_run
from reliability.runs import DIFFERING, LOST, SURVIVED, TRAIN, Case, Lab, Verdict, compare, difference, load

FLIPS = 6  # of one bit, in each file; checkpoints get more
FLIPS_OF_CHECKPOINTS = 60
EXTRA = {"running.json": b'{"host": "elsewhere", "pid": 1, "since": "long ago"}', ".lock": b""}
KIND = "damaged {}"


def damaged_files(lab: Lab) -> Iterator[Case]:
    """A case for every file and every damage."""
    begin = stopped_run(lab, *TENSORBOARD)
    for name, content in EXTRA.items():
        if not (begin / name).exists():
            (begin / name).write_bytes(content)
    reference = lab.fresh("reference-tensorboard", *TENSORBOARD)
    for file in sorted(path for path in begin.rglob("*") if path.is_file()):
        name = file.relative_to(begin).as_posix()
        if "events.out" in name:
            kind = KIND.format("tensorboard/*")
        elif ".partial" in name:
            kind = KIND.format("unfinished file")
        else:
            kind = KIND.format(name)
        for what, damage in _damages(lab, file):
            yield Case(kind, f"{Path(name).name}-{what}", partial(_attempt, begin, reference, name, damage))


def _damages(lab: Lab, file: Path) -> Iterator[tuple[str, Callable[[Path], None]]]:
    size = file.stat().st_size
    for kept in sorted({0, 1, size // 4, size // 2, size - 64, size - 1} & set(range(size))):
        yield f"cut-at-{kept}", partial(_rewrite, change=lambda data, kept=kept: data[:kept])
    draw = random.Random(f"{lab.seed} {file.name}")
    flips = FLIPS_OF_CHECKPOINTS if file.suffix == ".pt" else FLIPS
    for bit in sorted({draw.randrange(8 * size) for _ in range(flips)}) if size else ():
        yield f"bit-{bit}", partial(_rewrite, change=partial(_flip, bit=bit))
    yield "zeros", partial(_rewrite, change=lambda data: bytes(len(data)))
    yield "longer", partial(_rewrite, change=lambda data: data + b"\xff\x00\x80" * 9)
    yield "binary", partial(_rewrite, change=lambda data: draw.randbytes(300))
    yield "removed", Path.unlink
    yield "folder", _to_folder


def _rewrite(file: Path, change: Callable[[bytes], bytes]) -> None:
    file.write_bytes(change(file.read_bytes()))


def _flip(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ (1 << bit % 8)]) + data[bit // 8 + 1 :]


def _to_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _attempt(begin: Path, reference: Path, name: str, damage: Callable[[Path], None], folder: Path) -> Verdict:
    run = folder / "run"
    shutil.copytree(begin, run)
    damage(run / name)
    outcome = process.run(TRAIN, ["--resume", run], folder / "output")
    if outcome.fault:
        return Verdict(LOST, outcome.fault)
    if outcome.code:
        refused_well = outcome.code in (2, 3)
        return Verdict(SURVIVED if refused_well else LOST, f"exit code {outcome.code}: {outcome.stderr.strip()[:200]}")
    if found := difference(*(_state(folder / "checkpoints" / "last.pt") for folder in (reference, run)), "last.pt"):
        return Verdict(DIFFERING, found)
    if found := _best_differs(reference, run, folder):
        return Verdict(DIFFERING, found)
    # A bit of config.yaml may be an interval of logging, which may change.
    files = () if name in ("metrics.jsonl", "config.yaml") else ("metrics",)
    if found := (compare(reference, run, files).why or _unreadable_record(run)):
        return Verdict(DIFFERING, found)
    return Verdict(SURVIVED)


def _state(file: Path) -> dict:
    """What a checkpoint says about weights and how they go on; a changed configuration may name other log intervals."""
    return {
        key: value for key, value in load(file).items() if key in ("model", "ema", "optimizer", "scaler", "progress")
    }


def _best_differs(reference: Path, run: Path, folder: Path) -> str | None:
    """A best.pt that was damaged and is not written again stays damaged; then whoever reads it must be told."""
    best = run / "checkpoints" / "best.pt"
    try:
        if not difference(_state(reference / "checkpoints" / "best.pt"), _state(best), "best.pt"):
            return None
    except Exception:  # by version of torch; unreadable for torch is only half of the question
        pass
    outcome = process.run(
        "tools/val_mm.py",
        ["--checkpoint", best, "--config", reference / "config.yaml", "--out", folder / "scores"],
        folder / "output",
    )
    if outcome.fault or outcome.code != 2:
        return f"best.pt is damaged and tools/val_mm.py says: {outcome.fault or f'exit code {outcome.code}'}"
    return None


def _unreadable_record(run: Path) -> str | None:
    """Bits flipped inside of a number of a record leave a record, and nothing can tell; half a line must not stay."""
    for line in (run / "metrics.jsonl").read_bytes().splitlines():
        try:
            json.loads(line)
        except ValueError:
            return f"metrics.jsonl keeps a line that is no record: {line[:80]!r}"
    return None
