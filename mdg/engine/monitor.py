"""What a run shows: progress bar, log lines, ``metrics.jsonl``, and scalars and picture grids for trackers."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import nn

from mdg.config import RunConfig
from mdg.data import RGBTDataset
from mdg.engine.distributed import World
from mdg.engine.evaluation.pictures import predict_panels, spread
from mdg.engine.evaluation.scores import Evaluation, percent
from mdg.engine.inference import Inference
from mdg.engine.state import Progress
from mdg.engine.stopwatch import Stopwatch
from mdg.engine.trackers import Trackers
from mdg.utils import visualization as vis
from mdg.utils.logging import console
from mdg.utils.progress import time_left
from mdg.utils.run_directory import RunDirectory

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

logger = logging.getLogger("mdg.train")


SMOOTHING = 0.95


class Monitor:
    """Reports a run; processes other than the main one stay silent. A context manager around the loop."""

    def __init__(self, config: RunConfig, run: RunDirectory, world: World, last_step: int):
        self.config, self.run, self.world = config, run, world
        self.watch = Stopwatch(world.device)
        self.total_steps = last_step
        if config.train.max_steps is not None:
            self.total_steps = min(self.total_steps, config.train.max_steps)
        self.rate: float | None = None
        self._clock = time.perf_counter()
        self._trackers: Trackers | None = None
        self._bar: Bar | None = None

    def __enter__(self) -> Monitor:
        if self.world.main:
            self._trackers = Trackers(
                self.config.log.trackers, self.run.path, self.config.name, self.config.model_dump(mode="json")
            )
            self._trackers.open()
            if console.is_terminal:
                self._bar = Bar(
                    TextColumn("{task.description}"),
                    BarColumn(bar_width=24),
                    TextColumn("{task.completed}/{task.total}"),
                    TimeRemainingColumn(),
                    TextColumn("{task.fields[info]}"),
                    console=console,
                )
                self._bar.start()
                self._task = self._bar.add_task("train", total=self.total_steps, info="")
                self._eval_task = self._bar.add_task("validate", total=1, info="", visible=False)
        self._clock = time.perf_counter()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._trackers is not None:
            self._trackers.close()

    def step_done(self, lr: float, images: int) -> None:
        """Notes the speed of one optimizer step of this process and moves the bar."""
        now = time.perf_counter()
        rate, self._clock = images * self.world.size / max(now - self._clock, 1e-9), now
        self.rate = rate if self.rate is None else SMOOTHING * self.rate + (1 - SMOOTHING) * rate
        if self._bar is not None:
            self._bar.update(self._task, advance=1, info=f"lr {lr:.2e}  {self.rate:.1f} images/s  {memory()}")

    def log_losses(self, progress: Progress, means: dict[str, float], lr: float, skipped: int = 0) -> None:
        """One line of losses in every place; ``skipped`` steps of the run so far taught nothing."""
        if not self.world.main:
            return
        record = {
            "kind": "train",
            "step": progress.step,
            "epoch": progress.epoch,
            "lr": lr,
            **means,
            "skipped_steps": skipped,
        }
        self.run.log_metrics(record)
        eta = time_left((self.total_steps - progress.step) * self._seconds_per_step())
        terms = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
        logger.info(
            "epoch %d  step %d/%d  %s  lr %.2e  %.1f images/s  ETA %s  %s",
            progress.epoch + 1,
            progress.step,
            self.total_steps,
            terms,
            lr,
            self.rate or 0,
            eta,
            memory(),
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=progress.step, description=f"loss {means['loss']:.4f}")
        if self._trackers is not None:
            for name, value in means.items():
                self._trackers.scalar(f"train/{name}", value, progress.step)
            self._trackers.scalar("train/lr", lr, progress.step)
            self._trackers.scalar("speed/images_per_s", self.rate or 0, progress.step)

    def log_time(self, progress: Progress) -> None:
        """Where the time of an epoch went, of the main process."""
        if not self.world.main:
            return
        seconds, shares = self.watch.shares()
        parts = "  ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
        logger.info("epoch %d  %.1f s  %s", progress.epoch + 1, seconds, parts)
        if self._trackers is not None:
            for name, share in shares.items():
                self._trackers.scalar(f"speed/{name}", share, progress.step)

    def _seconds_per_step(self) -> float:
        images = self.config.train.batch_size * self.config.train.accumulate * self.world.size
        return images / self.rate if self.rate else 0.0

    def validating(self, total: int) -> Callable[[int], None] | None:
        """A callback that moves the validation bar, up to ``total`` images of this process; None without a bar."""
        bar = self._bar
        if bar is None:
            return None
        bar.reset(self._eval_task, total=total, visible=True)
        return lambda done: bar.update(self._eval_task, completed=done, visible=done < total)

    def log_view(self, progress: Progress, name: str, evaluation: Evaluation) -> None:
        """The score of a network that a method of training trains beside the one that is kept."""
        self._clock = time.perf_counter()
        if not self.world.main:
            return
        score = 100 * evaluation.means()["mIoU"]
        self.run.log_metrics(
            {"kind": "view", "view": name, "step": progress.step, "epoch": progress.epoch, "mIoU": score}
        )
        logger.info("epoch %s  view %s  mIoU %.2f", progress.place, name, score)

    def log_evaluation(self, progress: Progress, evaluation: Evaluation, split: str) -> None:
        """Scores of the selection split in every place: the primary rule, and the mIoU under the others."""
        self._clock = time.perf_counter()  # the validation is no part of the next step
        if not self.world.main:
            return
        scores = percent(evaluation.means())
        iou = [100 * float(value) for value in evaluation.counted().iou()]
        groups = {f"mIoU_{name}": 100 * evaluation.means(group=name)["mIoU"] for name in evaluation.groups}
        rules = {rule.name: 100 * evaluation.means(rule)["mIoU"] for rule in evaluation.rules[1:]}
        self.run.log_metrics(
            {
                "kind": "eval",
                "split": split,
                "step": progress.step,
                "epoch": progress.epoch,
                **scores,
                **groups,
                "mIoU_by_rule": rules,
                "iou": iou,
            }
        )
        logger.info(
            "epoch %s  %s  mIoU %.2f  mAcc %.2f  pixel accuracy %.2f  %s%s(%d images in %.1f s)",
            progress.place,
            split,
            scores["mIoU"],
            scores["mAcc"],
            scores["pixel_accuracy"],
            "".join(f"{name} {value:.2f}  " for name, value in groups.items()),
            "".join(f"mIoU ({name}) {value:.2f}  " for name, value in rules.items()),
            evaluation.images,
            evaluation.seconds,
        )
        if self._trackers is not None:
            by_rule = {f"mIoU_{name}".replace(" ", "_"): value for name, value in rules.items()}
            for name, value in {**scores, **groups, **by_rule}.items():
                if np.isfinite(value):
                    self._trackers.scalar(f"{split}/{name}", value, progress.step)

    def log_pictures(
        self, model: nn.Module, dataset: RGBTDataset, autocast: torch.autocast, progress: Progress
    ) -> None:
        """A grid of RGB, thermal, divergence, prediction and label of a few frames; leaves the model evaluating."""
        if self._trackers is None or not self._trackers.works or not self.config.log.pictures:
            return
        places = spread(len(dataset), self.config.log.pictures)
        inference = Inference(model, self.config.eval, autocast, self.world.device)
        panels = predict_panels(inference, dataset, places, self.config.pipeline.eval_size)
        key = vis.legend(dataset.classes, dataset.palette_K3, panels[0][1].shape[1])
        grid = vis.stack([*[picture for _, picture in panels], key])
        self._trackers.picture("frames", grid, progress.step)
        self._clock = time.perf_counter()


def memory() -> str:
    """Peak memory of this process: of the GPU where there is one, else resident; empty where no one counts it."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB GPU"
    if resource is None:
        return ""
    unit = 1 if sys.platform == "darwin" else 1024
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.1f} GiB"
