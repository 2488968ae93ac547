"""The training loop: ``fit`` > ``train_epoch`` > ``train_step``.

Legend: B batch, H W image, K classes.
"""

from __future__ import annotations

import logging
import math
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import mdg
from mdg.config import RunConfig, dump_yaml
from mdg.data import Batch, TrainLoader, build_dataset, build_transforms
from mdg.engine.checkpoint import load_checkpoint, load_weights, save_checkpoint
from mdg.engine.distributed import World
from mdg.engine.evaluator import Evaluation, evaluate_model, make_autocast, make_eval_loader
from mdg.engine.monitor import Monitor
from mdg.engine.provenance import frame_set, joined
from mdg.engine.state import LossMeter, Progress, seed_step
from mdg.engine.stopping import StopSignals
from mdg.errors import ConfigError, UserError
from mdg.losses import Objective
from mdg.models import build_model
from mdg.models.compilation import compile_network
from mdg.models.recompute import recompute_activations
from mdg.registry import OPTIMIZERS, SCHEDULES
from mdg.utils.run_directory import RunDirectory

logger = logging.getLogger("mdg.train")


class Trainer:
    """Trains one configuration in one process of ``world``.

    Args:
        config: The run.
        run: Where it is kept; only the main process writes.
        world: This process among its peers.
        resume: Continue from ``run.last``.
    """

    def __init__(self, config: RunConfig, run: RunDirectory, world: World, resume: bool = False):
        self.config, self.run, self.world = config, run, world
        self.progress, self.meter = Progress(), LossMeter()
        self._build_data()
        self._build_model(load_pretrained=not resume)
        self._build_optimization()
        if resume:
            self._restore()
        self.network = self._parallel(self.model)
        self.monitor = Monitor(config, run, world, len(self.train_loader), self.steps_per_epoch)

    # --- building -----------------------------------------------------------------------------------------------------

    def _build_data(self) -> None:
        config, world = self.config, self.world
        self.train_set = build_dataset(config.data, "train")
        self.train_loader = TrainLoader(
            self.train_set,
            build_transforms(config.pipeline.train),
            batch_size=config.train.batch_size,
            seed=config.seed,
            workers=config.pipeline.workers,
            prefetch=config.pipeline.prefetch,
            rank=world.rank,
            world_size=world.size,
        )
        self.eval_set = self.eval_loader = None
        if config.eval.selection != "last":
            self.eval_set = build_dataset(config.data, config.eval.selection)
            self.eval_loader = make_eval_loader(config, self.eval_set, world, min(config.pipeline.workers, 2))
        # Checkpoints keep the names of the frames, so that an evaluation can tell whether it scores some of them.
        self.trained_on = frame_set(self.train_set)
        self.selected_on = frame_set(self.eval_set) if self.eval_set is not None else None
        self.steps_per_epoch = math.ceil(len(self.train_loader) / config.train.accumulate)

    def _build_model(self, load_pretrained: bool) -> None:
        config, device = self.config, self.world.device
        torch.manual_seed(config.seed)
        model = build_model(config.model, len(self.train_set.classes), load_pretrained=load_pretrained)
        if config.train.sync_batchnorm and self.world.size > 1 and device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        model.to(device, memory_format=torch.channels_last if config.train.channels_last else torch.contiguous_format)
        if config.train.activation_checkpointing:
            recompute_activations(model)
        self.model = model
        self.ema = None
        if config.train.ema_decay is not None:
            self.ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.train.ema_decay))
        if config.train.compile:
            compile_network(model)

    def _build_optimization(self) -> None:
        config = self.config
        self.objective = Objective(config, len(self.train_set.classes), self.train_set.ignore_index)
        self.objective.to(self.world.device)
        self.optimizer = OPTIMIZERS.create(config.optimizer, model=self.model)
        self.schedule = SCHEDULES.create(
            config.schedule, steps_per_epoch=self.steps_per_epoch, epochs=config.train.epochs
        )
        self.scaler = torch.amp.GradScaler(self.world.device.type, enabled=config.train.precision == "fp16")
        self.autocast = make_autocast(config, self.world.device)

    def _parallel(self, model: nn.Module) -> nn.Module:
        if self.world.size == 1:
            return model
        devices = [self.world.device] if self.world.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)

    # --- the loop -----------------------------------------------------------------------------------------------------

    def fit(self) -> Progress:
        """Trains to the end, or to a stop that was asked for; returns where the run stands.

        Raises:
            UserError: The loss is no longer finite, or data cannot be used. ``last.pt`` then holds the last good state.
        """
        with self.monitor, StopSignals() as self.signals:
            try:
                self._train_epochs()
            except RuntimeError as error:
                if not (self.signals.received and "DataLoader worker" in str(error)):
                    raise
                # A signal to every single process (some clusters) kills the loaders in the middle of a step, which then
                # must not be saved.
                raise UserError(
                    f"stopped by a signal that also killed a loader process, in the middle of step "
                    f"{self.progress.step + 1}; continue from the last saved step with --resume {self.run.path}"
                ) from None
        return self.progress

    def _train_epochs(self) -> None:
        while self.progress.epoch < self.config.train.epochs and not self._stop_reached():
            if not self.train_epoch(self.progress.epoch):
                break
            self._finish_epoch()

    def train_epoch(self, epoch: int) -> bool:
        """One pass over the training split from where it stands; False where it was stopped inside."""
        self.network.train()
        batches = self.train_loader.epoch(epoch, start=self.progress.batch)
        while group := list(islice(batches, self.config.train.accumulate)):
            self.train_step(group)
            self.progress.step += 1
            self.progress.batch += len(group)
            self._after_step()
            if self.progress.batch < len(self.train_loader) and self._stop_reached():
                self.save_last()
                return False
        return True

    def train_step(self, group: list[Batch]) -> None:
        """One optimizer step over the batches of ``group``, whose gradients are averaged."""
        lr = self._set_learning_rate()
        for part, batch in enumerate(group):
            seed_step(self.config.seed, self.progress.step, part, self.world.rank)
            last = part == len(group) - 1
            with nullcontext() if last or self.world.size == 1 else self.network.no_sync():
                loss = self._forward(batch)
                self.scaler.scale(loss / len(group)).backward()
        if self.config.train.clip_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.train.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        self.monitor.step_done(lr, images=sum(len(batch.names) for batch in group))

    def _forward(self, batch: Batch) -> torch.Tensor:
        device = self.world.device
        with self.autocast:
            output = self.network(
                batch.rgb_B3HW.to(device, non_blocking=True), batch.thermal_B1HW.to(device, non_blocking=True)
            )
        loss, terms = self.objective(output, batch.label_BHW.to(device, non_blocking=True).long())
        self.meter.add({"loss": loss, **terms})
        return loss

    def _set_learning_rate(self) -> float:
        lr = self.config.optimizer.lr * self.schedule.factor(self.progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def _after_step(self) -> None:
        step = self.progress.step
        if step % self.config.log.every_steps == 0:
            self._log_losses()
        every = self.config.checkpoint.every_steps
        if every is not None and step % every == 0 and self.progress.batch < len(self.train_loader):
            self.save_last()

    def _log_losses(self) -> None:
        means = self.meter.flush(self.world)
        if not all(map(math.isfinite, means.values())):
            raise UserError(
                f"the loss is no longer finite at step {self.progress.step} ({means}). {self.run.last} holds "
                "the last saved state; lower optimizer.lr, set train.clip_grad_norm, or use fp32 or bf16."
            )
        self.monitor.log_losses(self.progress, means, self.optimizer.param_groups[0]["lr"])

    def _stop_reached(self) -> bool:
        limits, progress = self.config.train, self.progress
        if limits.stop_epoch is not None and progress.epoch >= limits.stop_epoch:
            return True
        if limits.max_steps is not None and progress.step >= limits.max_steps:
            return True
        # Several processes must agree on the step they stop at; asking each step would make every step wait.
        ask = self.world.size == 1 or progress.step % self.config.log.every_steps == 0
        return ask and self.world.any(self.signals.received)

    def _finish_epoch(self) -> None:
        self.progress.epoch += 1
        self.progress.batch = 0
        epoch, last = self.progress.epoch, self.progress.epoch == self.config.train.epochs
        improved = False
        if self.eval_loader is not None and (last or epoch % self.config.eval.every == 0):
            improved = self._select(self.validate())
        elif self.eval_loader is None:
            self.progress.best_epoch, improved = epoch, True
        if improved:
            self.save_best()
        self.save_last()

    # --- validation and checkpoints -----------------------------------------------------------------------------------

    @property
    def scored_model(self) -> nn.Module:
        """The weights that are evaluated and kept: the moving average where there is one."""
        return self.ema.module if self.ema is not None else self.model

    def validate(self) -> Evaluation:
        """Scores the selection split and logs scores and pictures."""
        evaluation = evaluate_model(
            self.scored_model,
            self.eval_loader,
            self.eval_set,
            self.config,
            self.world,
            progress=self.monitor.validating(self.eval_loader.images),
        )
        self.monitor.log_evaluation(self.progress, evaluation, self.config.eval.selection)
        if self.world.main:
            self.monitor.log_pictures(self.scored_model, self.eval_set, self.autocast, self.progress)
        return evaluation

    def _select(self, evaluation: Evaluation) -> bool:
        # Under the primary rule of the data set.
        score = evaluation.means()[self.config.eval.metric]
        best = self.progress.best_score
        if math.isnan(score) or (best is not None and score <= best):
            return False
        self.progress.best_score, self.progress.best_epoch = score, self.progress.epoch
        return True

    def _description(self) -> dict[str, Any]:
        return {
            "config": dump_yaml(self.config),
            "progress": self.progress.as_dict(),
            "mdg_version": mdg.__version__,
            "classes": list(self.train_set.classes),
            "palette": self.train_set.palette_K3.tolist(),
            "trained_on": self.trained_on,
            "selected_on": self.selected_on,
            "world_size": self.world.size,
        }

    def save_best(self) -> None:
        """Writes the evaluated weights."""
        if self.world.main:
            save_checkpoint(self.run.best, {"model": self.scored_model.state_dict(), **self._description()})
        self.world.barrier()

    def save_last(self) -> None:
        """Writes everything needed to continue exactly."""
        if self.world.main:
            save_checkpoint(
                self.run.last,
                {
                    "model": self.model.state_dict(),
                    "ema": self.ema.state_dict() if self.ema is not None else None,
                    "optimizer": self.optimizer.state_dict(),
                    "scaler": self.scaler.state_dict(),
                    "meter": self.meter.state_dict(),
                    **self._description(),
                },
            )
        self.world.barrier()

    def _restore(self) -> None:
        state = load_checkpoint(self.run.last)
        if state["world_size"] != self.world.size:
            raise ConfigError(
                f"--resume {self.run.path}: the run was started with {state['world_size']} processes, now "
                f"there are {self.world.size}; an exact resume needs the same number"
            )
        load_weights(self.model, state["model"], self.run.last)
        if self.ema is not None:
            if state["ema"] is None:
                raise ConfigError(
                    f"--resume {self.run.path}: train.ema_decay is set, but the run had no moving average"
                )
            self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.meter.load_state_dict(state["meter"], self.world.device)
        self.progress = Progress(**state["progress"])
        self.trained_on = joined(state.get("trained_on"), self.trained_on)
        self.selected_on = joined(state.get("selected_on"), self.selected_on)
        if self.world.main:
            self.run.truncate_metrics(self.progress.step)
        logger.info("resumed at epoch %d, step %d", self.progress.epoch, self.progress.step)
