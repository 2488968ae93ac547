"""The measurements behind docs/benchmarks.md: every one a command that a reader can repeat.

The last is a training run of some minutes, as a user starts it: trained until the time is over, stopped by the signal
that a cluster sends at its time limit, behind a saved step, then scored.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdg.config import load_config
from mdg.engine.checkpoint import load_checkpoint
from mdg.errors import UserError
from mdg.utils.cli import EXIT_STOPPED
from mdg.utils.environment import describe_environment
from mdg.utils.run_directory import RunDirectory

DENSE = "model.interaction.sparse=false"
PLAIN = ["ops.neighborhood_attention=tiled", "ops.channel_scan=torch", DENSE]
PUBLISHED = ["ops.neighborhood_attention=tiled", "ops.channel_scan=reference", DENSE]
# Worth measuring on a GPU only.
HALF_PRECISION = {
    "inference, bf16, batch 1": "--batch 1 --ops",
    "inference, bf16, batch 1, CUDA graph": "--batch 1 --cuda-graphs",
    "inference, bf16, batch 1, compiled": "--batch 1 --compile",
    "inference, bf16, batch 1, compiled, CUDA graph": "--batch 1 --compile --cuda-graphs",
    "inference, bf16, batch 16": "--batch 16",
    "inference, bf16, batch 16, compiled": "--batch 16 --compile",
    "training step, bf16, batch 16": "--mode train --batch 16",
    "training step, bf16, batch 16, compiled": "--mode train --batch 16 --compile",
    "training step, bf16, batch 16, activation checkpointing": "--mode train --batch 16 --checkpointing",
}
PIPELINE_SECONDS = "5"


@dataclass(frozen=True)
class Entry:
    """One command, and what it measures."""

    title: str
    module: str
    arguments: tuple[str, ...]

    def command(self) -> str:
        """What a reader types."""
        return " ".join(["python", "-m", self.module, *self.arguments])


@dataclass(frozen=True)
class Result:
    """What an entry gave: its JSON, or the message it ended with."""

    entry: Entry
    found: dict[str, Any] | None
    message: str = ""


def suite(config: str, height: int, width: int, device: str) -> list[Entry]:
    """The measurements of a configuration on a type of device; few repetitions on a CPU, where a step takes seconds."""
    few = device == "cpu"
    infer = ("--steps", "5", "--warmup", "1") if few else ()
    train = ("--mode", "train", "--batch", "2", *(("--steps", "2", "--warmup", "1") if few else ()))
    size, large = (("--height", str(n * height), "--width", str(n * width)) for n in (1, 2))

    def entry(title: str, *arguments: str) -> Entry:
        return Entry(title, "mdg.commands.benchmark", ("--config", config, *arguments))

    entries = [
        entry("inference, batch 1", *size, *infer, "--ops"),
        entry(f"inference, batch 1, {2 * height}x{2 * width}", *large, *infer),
        entry("inference, batch 1, plain scan and dense interaction", *size, *infer, "--opts", *PLAIN),
        entry(
            "inference, batch 1, all states written out as published, dense interaction",
            *size,
            *infer,
            "--opts",
            *PUBLISHED,
        ),
        entry("training step, batch 2", *size, *train),
        entry("training step, batch 2, activation checkpointing", *size, *train, "--checkpointing"),
    ]
    if few:
        blas = "inference, batch 1, linear layers by PyTorch's BLAS"
        return [*entries, entry(blas, *size, *infer, "--backend", "linear=torch")]
    half = [entry(title, *size, "--precision", "bf16", *flags.split()) for title, flags in HALF_PRECISION.items()]
    return [*entries, *half]


def pipeline(config: str) -> Entry:
    """The measurement of the input pipeline, for where the data set is."""
    arguments = ("--config", config, "--seconds", PIPELINE_SECONDS)
    return Entry("input pipeline", "mdg.commands.benchmark_data", arguments)


def run_entry(entry: Entry) -> Result:
    """Runs an entry in a process of its own; what it prints appears."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        command = [sys.executable, "-m", entry.module, *entry.arguments, "--json", str(file)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode == 0:
            return Result(entry, json.loads(file.read_text(encoding="utf-8")))
    print(done.stderr, file=sys.stderr, end="")
    return Result(entry, None, _last_message(done.stderr) or f"exit code {done.returncode}")


def _last_message(stderr: str) -> str:
    lines: Sequence[str] = stderr.strip().splitlines()
    started = [place for place, line in enumerate(lines) if ": error: " in line]
    return " ".join(lines[started[-1] :]).partition(": error: ")[2] if started else " ".join(lines[-1:])


def train_for(config: str | Path, seconds: float, opts: Sequence[str], run_dir: str | Path) -> dict[str, Any]:
    """Trains a configuration in a process of its own, and scores its best weights (else the last) on the validation
    split. Both show what they always show.

    Args:
        config: A YAML.
        seconds: When the run is asked to stop; one that ends earlier is not started again.
        opts: Overrides.
        run_dir: Where to keep the run; must be empty.

    Returns:
        Plain values: ``seconds`` (from the start of the process to its end, so with loading, compilation, validations
        and checkpoints), ``steps``, ``epochs`` finished, ``images`` trained on, ``images_per_s`` over all of the time,
        ``scores`` and ``protocol`` of the validation split, ``config``, ``precision``, ``batch_size``, ``machine``.

    Raises:
        UserError: Training or scoring failed, or the run was stopped before its first saved step.
    """
    settings = load_config(config, opts)  # a mistake in it should not be told by another process
    run = RunDirectory(Path(run_dir))
    options = ["--opts", *opts] if opts else []
    begun = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "mdg.commands.train", str(config), "--run-dir", str(run.path), *options]
    ) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
        code = process.wait()
    elapsed = time.monotonic() - begun
    if code not in (0, EXIT_STOPPED) or not run.last.is_file():
        raise UserError(f"the training run ended with exit code {code} after {elapsed:.0f} s; see its messages above")
    progress = load_checkpoint(run.last)["progress"]
    images = progress["step"] * settings.train.accumulate * settings.train.batch_size
    scored = _score(run.best if run.best.is_file() else run.last)
    return {
        "config": settings.name,
        "precision": settings.train.precision,
        "batch_size": settings.train.batch_size,
        "seconds": elapsed,
        "steps": progress["step"],
        "epochs": progress["epoch"],
        "images": images,
        "images_per_s": images / elapsed,
        "scores": scored["scores"],
        "protocol": scored["protocol"],
        "machine": describe_environment(),
    }


def _score(checkpoint: Path) -> dict[str, Any]:
    result = run_entry(Entry("scores", "mdg.commands.val", ("--checkpoint", str(checkpoint), "--split", "val")))
    if result.found is None:
        raise UserError(f"scoring {checkpoint} failed: {result.message}")
    return result.found
