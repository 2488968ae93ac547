"""A training run of some minutes, as a user starts it: trained until the time is over, then scored.

The run is stopped by the signal that a cluster sends at its time limit, behind a saved step.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mdg.benchmark.suite import ROOT, Entry, run_entry
from mdg.config import load_config
from mdg.engine.checkpoint import load_checkpoint
from mdg.errors import UserError
from mdg.utils.cli import EXIT_STOPPED
from mdg.utils.environment import describe_environment
from mdg.utils.run_directory import RunDirectory


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
        [sys.executable, str(ROOT / "tools" / "train.py"), str(config), "--run-dir", str(run.path), *options]
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
    result = run_entry(Entry("scores", "tools/val_mm.py", ("--checkpoint", str(checkpoint), "--split", "val")))
    if result.found is None:
        raise UserError(f"scoring {checkpoint} failed: {result.message}")
    return result.found
