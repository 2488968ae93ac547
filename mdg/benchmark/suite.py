"""The set of measurements behind docs/benchmarks.md: every one a command that a reader can repeat."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mdg

ROOT = Path(mdg.__file__).parent.parent
DENSE = "model.interaction.sparse=false"
PLAIN = ["ops.neighborhood_attention=tiled", "ops.selective_scan=torch", DENSE]
PUBLISHED = ["ops.neighborhood_attention=tiled", "ops.selective_scan=reference", DENSE]
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
    tool: str
    arguments: tuple[str, ...]

    def command(self) -> str:
        """What a reader types."""
        return " ".join(["python", self.tool, *self.arguments])


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
        return Entry(title, "tools/benchmark.py", ("--config", config, *arguments))

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
    return Entry("input pipeline", "tools/benchmark_data.py", arguments)


def run_entry(entry: Entry) -> Result:
    """Runs an entry in a process of its own; what it prints appears."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        command = [sys.executable, str(ROOT / entry.tool), *entry.arguments, "--json", str(file)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode == 0:
            return Result(entry, json.loads(file.read_text(encoding="utf-8")))
    print(done.stderr, file=sys.stderr, end="")
    return Result(entry, None, _last_message(done.stderr) or f"exit code {done.returncode}")


def _last_message(stderr: str) -> str:
    lines: Sequence[str] = stderr.strip().splitlines()
    started = [place for place, line in enumerate(lines) if ": error: " in line]
    return " ".join(lines[started[-1] :]).partition(": error: ")[2] if started else " ".join(lines[-1:])
