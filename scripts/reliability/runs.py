"""The run that faults are tried on, and how what is left of it is judged.

A victim survives where the run, once it is continued to its end, equals one that nothing happened to: every tensor and
every value of its checkpoints bit for bit, every record of its metrics, its configuration.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch

from reliability import process
from reliability.process import Child, Outcome

CONFIG = """
custom_imports: [reliability.tiny]
data: {type: Synthetic, height: 32, width: 40, train_images: 5, val_images: 2, test_images: 2}
pipeline: {train: [{type: HorizontalFlip, p: 0.5}], workers: 0}
model: {type: TinySegmentor}
optimizer: {type: AdamW, lr: 1e-2}
schedule: {type: Poly, warmup_epochs: 1}
train: {epochs: 3, batch_size: 2, ema_decay: 0.9, clip_grad_norm: 1.0}
checkpoint: {every_steps: 2}
log: {every_steps: 2, pictures: 1, trackers: []}
device: cpu
threads: 1
"""
TRAIN = "tools/train.py"
SURVIVED, LOST, DIFFERING = "survived", "lost", "differing"
ROUNDS = 6  # of continuing before a run counts as stuck


class Verdict(NamedTuple):
    """What became of a victim: ``outcome`` of ``tries`` faults, and why where it did not survive."""

    outcome: str
    why: str = ""
    tries: int = 1


@dataclass(frozen=True)
class Case:
    """One thing to try: ``attempt`` gets an empty folder and says what became of the victim in it."""

    kind: str
    name: str
    attempt: Callable[[Path], Verdict]


class Skip(Exception):
    """A kind of fault that this machine cannot make; the text says why."""


@dataclass(frozen=True)
class Lab:
    """Where victims live, how many faults there are, and what the random ones start from."""

    work: Path
    seed: int = 0
    tries: int = 300

    @cached_property
    def config(self) -> Path:
        """The configuration of all victims."""
        file = self.work / "victim.yaml"
        file.write_text(CONFIG, encoding="utf-8")
        return file

    @cached_property
    def reference(self) -> Path:
        """The run that nothing happens to."""
        return self.fresh("reference")

    def fresh(self, name: str, *opts: str) -> Path:
        """A run from start to end in a folder below ``work``."""
        run = self.work / name
        if run.exists():
            shutil.rmtree(run)
        outcome = self.train(run, self.work / f"{name}-output", opts=opts)
        assert outcome.code == 0, f"the run without faults failed: {outcome.stderr or outcome.stdout}"
        return run

    def train(self, run: Path, output: Path, *, opts: Sequence[str] = (), **options: Any) -> Outcome:
        """A new run in the folder ``run``; options of :func:`process.start`."""
        return process.run(TRAIN, self.arguments(run, opts), output, **options)

    def start(self, run: Path, output: Path, *, opts: Sequence[str] = (), **options: Any) -> Child:
        """The same, not waited for."""
        return process.start(TRAIN, self.arguments(run, opts), output, **options)

    def arguments(self, run: Path, opts: Sequence[str] = ()) -> list[str]:
        """The command line that starts a run, or continues it where it has been saved."""
        if has_state(run):
            return ["--resume", str(run)]
        return [str(self.config), "--run-dir", str(run), *(["--opts", *opts] if opts else [])]

    def finish(self, run: Path, output: Path, reference: Path | None = None, opts: Sequence[str] = ()) -> Verdict:
        """Continues a run to its end without further faults and compares it with the reference."""
        if problem := broken_state(run):
            return Verdict(LOST, problem)
        began = has_state(run)
        if not began and run.exists():  # nothing was saved, nothing is lost: the user starts again elsewhere
            refusal = process.run(TRAIN, ["--resume", run], output)
            if refusal.fault or refusal.code != 2:
                return Verdict(LOST, f"resuming a run without a state: {refusal.fault or refusal.code}")
            shutil.rmtree(run)
        outcome = self.train(run, output, opts=opts)
        if outcome.fault or outcome.code:
            return Verdict(LOST, f"cannot be continued: {outcome.fault or outcome.stderr.strip()}")
        if leftovers := [file.name for file in run.rglob("*partial*")]:
            return Verdict(DIFFERING, f"left behind: {leftovers}")
        return compare(reference or self.reference, run)


def has_state(run: Path) -> bool:
    """Whether there is anything to continue from."""
    return any((run / "checkpoints" / name).is_file() for name in ("last.pt", "previous.pt"))


def broken_state(run: Path) -> str | None:
    """A checkpoint that is there and cannot be read; no kill may ever leave one."""
    for file in sorted((run / "checkpoints").glob("*.pt")):
        try:
            torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # by version of torch
            return f"{file.name} cannot be read: {type(error).__name__}"
    return None


def compare(reference: Path, run: Path, files: Sequence[str] = ("last.pt", "best.pt", "metrics", "config")) -> Verdict:
    """Whether two finished runs are the same."""
    for name in files:
        if name.endswith(".pt"):
            try:
                found = difference(load(reference / "checkpoints" / name), load(run / "checkpoints" / name), name)
            except Exception as error:
                return Verdict(DIFFERING, f"{name} cannot be read: {type(error).__name__}: {str(error)[:100]}")
        elif name == "metrics":
            found = difference(metrics(reference), metrics(run), "metrics.jsonl")
        else:
            texts = [
                (folder / "config.yaml").read_text(encoding="utf-8", errors="replace") for folder in (reference, run)
            ]
            found = None if texts[0] == texts[1] else "config.yaml differs"
        if found:
            return Verdict(DIFFERING, found)
    return Verdict(SURVIVED)


def load(file: Path) -> dict[str, Any]:
    """The content of a checkpoint."""
    return torch.load(file, map_location="cpu", weights_only=True)


def metrics(run: Path) -> list[dict[str, Any]]:
    """The records of a run; a damaged line raises ValueError."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def difference(a: Any, b: Any, where: str) -> str | None:
    """The first place at which two trees of tensors and values differ, bit for bit; None where nowhere."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"{where}: {a.dtype} {tuple(a.shape)} against {b.dtype} {tuple(b.shape)}"
        left, right = (x.detach().contiguous().reshape(-1).view(torch.uint8) for x in (a, b))
        return None if torch.equal(left, right) else f"{where}: other bits in a tensor of {tuple(a.shape)}"
    if isinstance(a, dict) and isinstance(b, dict):
        if list(a) != list(b):
            return f"{where}: keys {list(a)[:8]} against {list(b)[:8]}"
        pairs = [(f"{where}.{key}", a[key], b[key]) for key in a]
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return f"{where}: {len(a)} items against {len(b)}"
        pairs = [(f"{where}[{i}]", x, y) for i, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        return None if type(a) is type(b) and repr(a) == repr(b) else f"{where}: {a!r} against {b!r}"[:300]
    return next((found for name, x, y in pairs if (found := difference(x, y, name))), None)
