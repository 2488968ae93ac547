"""Which learning rate to train with: a range test (Smith, WACV 2017), which lets the rate grow until the loss does."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mdg.config import load_config
from mdg.engine.train import train
from mdg.errors import ConfigError, NonFiniteError
from mdg.utils.rate_chart import rate_picture
from mdg.utils.run_directory import RunDirectory

SMOOTHING = 0.9  # of the moving average over steps
GONE = 0.5  # share of the way from the first loss down to the lowest one by which a loss above the lowest one is lost
LEAST = 0.02  # share of the first loss; a smaller fall is that of single batches, and can be followed by such a rise
FEWEST = 10  # steps of which anything can be said


class RangeTest(NamedTuple):
    """What a range test found: rates and losses per step, smoothed losses up to where they are lost, and the rates at
    the steepest fall and at the lowest loss."""

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    steepest: float
    lowest: float

    @property
    def suggested(self) -> float:
        """A rate to start with: that of the steepest fall, at most a third of that of the lowest loss, rounded."""
        rate = min(self.steepest, self.lowest / 3)
        power = 10.0 ** math.floor(math.log10(rate))
        return float(f"{round(rate / power, 1) * power:.3g}")


def find_rate(
    config: str | Path,
    opts: Sequence[str] = (),
    *,
    lowest: float = 1e-6,
    highest: float = 1.0,
    steps: int = 100,
    picture: str | Path | None = None,
) -> RangeTest:
    """Trains for ``steps`` optimizer steps with a rate that grows from ``lowest`` to ``highest``; keeps no run.

    Args:
        config, opts: The run whose rate is looked for.
        lowest, highest: Rates of the first and of the last step.
        steps: How many.
        picture: Where to draw the losses over the rates.

    Raises:
        ConfigError: Rates that are none, or a loss that never fell.
    """
    if not 0 < lowest < highest or steps < FEWEST:
        raise ConfigError(
            f"got rates {lowest:g} to {highest:g} and {steps} steps; expected 0 < lowest < highest and at least "
            f"{FEWEST} steps"
        )
    plain = load_config(config, opts)
    overrides = [
        *opts,
        f"optimizer.lr={highest!r}",
        f"schedule={{type: RangeTest, lowest_ratio: {lowest / highest!r}, steps: {steps}}}",
        f"train.max_steps={steps}",
        f"train.epochs={max(plain.train.epochs, steps)}",
        "train.max_skipped_steps=1",
        "train.ema_decay=null",
        "eval.selection=last",
        "log={every_steps: 1, trackers: []}",
        "checkpoint.every_steps=null",
    ]
    folder = Path(tempfile.mkdtemp(prefix="mdg-find-lr-"))
    try:
        with suppress(NonFiniteError):  # the end of the test, as of any that goes far enough
            train(config, overrides, run_dir=folder / "run")
        records = [json.loads(line) for line in RunDirectory(folder / "run").metrics.read_text().splitlines()]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = analyse(*zip(*[(r["lr"], r["loss"]) for r in records if r.get("loss") is not None], strict=True))
    if picture is not None:
        marks = {"steepest fall": found.steepest, "lowest loss": found.lowest, "suggested": found.suggested}
        rate_picture(Path(picture), found.rates, found.losses, found.smoothed, marks)
    return found


def analyse(rates: Sequence[float], losses: Sequence[float]) -> RangeTest:
    """Finds the rates; raises ConfigError where the loss never fell."""
    smoothed, mean = [], 0.0
    for step, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed.append(mean / (1 - SMOOTHING**step))
        fell, rose = smoothed[0] - min(smoothed), smoothed[-1] - min(smoothed)
        lost = rose > GONE * fell if fell > LEAST * abs(smoothed[0]) else rose > abs(smoothed[0])
        if lost or not math.isfinite(loss):
            break
    kept = np.array(smoothed)
    kept = kept[np.isfinite(kept)]
    if len(kept) < FEWEST or kept[0] - kept.min() <= LEAST * abs(kept[0]):
        raise ConfigError("the loss never fell, or was lost at once: begin with a lower rate, or take more steps")
    logs = np.log(np.asarray(rates[: len(kept)]))
    bottom = int(kept.argmin())
    slope = np.gradient(kept[: bottom + 1], logs[: bottom + 1])
    return RangeTest(
        np.asarray(rates), np.asarray(losses), kept, float(rates[int(slope.argmin())]), float(rates[bottom])
    )
