"""The training loop: ``fit`` > ``train_epoch`` > ``train_step``.

Legend: B batch, H W image, K classes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from itertools import islice

import torch
from torch import nn

from mdg.config import RunConfig, dump_yaml
from mdg.data import Batch
from mdg.data.waiting import NoBatch
from mdg.engine.checkpoint import save_checkpoint
from mdg.engine.diagnosis import diverged
from mdg.engine.distributed import World, summing_gradients
from mdg.engine.evaluation.evaluator import Evaluation, evaluate_model
from mdg.engine.evaluation.provenance import FrameSet
from mdg.engine.freezing import freeze, hold
from mdg.engine.guard import StepGuard
from mdg.engine.methods import Images
from mdg.engine.monitor import Monitor
from mdg.engine.optim import set_rates
from mdg.engine.resume import open_saved, restore
from mdg.engine.run_data import RunData
from mdg.engine.runtime import compile_network, make_autocast, place_network
from mdg.engine.sharding import whole
from mdg.engine.start import start_from
from mdg.engine.state import LossMeter, Progress, description, seed_step
from mdg.engine.stopping import StopSignals
from mdg.engine.weights import Weights
from mdg.errors import ConfigError, NonFiniteError
from mdg.losses import Objective
from mdg.models import build_model
from mdg.models.absence import require_cameras, set_modality_dropout
from mdg.registry import METHODS, OPTIMIZERS, SCHEDULES
from mdg.utils.files import keep_second, sync_file
from mdg.utils.run_directory import RunDirectory

logger = logging.getLogger("mdg.train")


class Trainer:
    """Trains one configuration in one process of ``world``.

    Args:
        config: The run.
        run: Where it is kept; only the main process writes.
        world: This process among its peers.
        resume: Continue from the newest state in ``run`` that is whole.
        allow_changes: Also where configuration, code or data are not those of the run.

    Raises:
        UserError: A configuration, data set or state that cannot be used; nothing in ``run`` was touched.
    """

    def __init__(
        self, config: RunConfig, run: RunDirectory, world: World, resume: bool = False, allow_changes: bool = False
    ):
        self.config, self.run, self.world = config, run, world
        self.config_text = dump_yaml(config)  # every saved state holds it
        self.progress, self.meter = Progress(), LossMeter()
        self.changes: list[str] = []  # between this run and the one it continues
        self.ancestors: list[FrameSet] = []  # frames behind the weights it started from
        self.signals, self.interrupted = StopSignals(), False  # interrupted: by a signal to any of the processes
        self._open_data()
        saved = open_saved(run, config, self.data.identity, allow_changes) if resume else None
        self._build_model(load_pretrained=not resume)
        self._build_optimization()
        self.data.fill_caches()
        if saved is not None:
            restore(self, saved)
        self.network = self.weights.connect()
        self.monitor = Monitor(config, run, world, self.schedule.last_step)

    # --- building -----------------------------------------------------------------------------------------------------

    def _open_data(self) -> None:
        config = self.config
        data = RunData(config, self.world, self.signals.asked)
        self.train_set, self.balance = data.train_set, data.balance
        self.method = METHODS.create(config.train.method, config=config, num_classes=len(self.train_set.classes))
        data.open_loaders(unlabelled=self.method.uses_unlabelled)
        self.train_loader, self.eval_set, self.eval_loader = data.train_loader, data.eval_set, data.eval_loader
        self.trained_on: FrameSet | None = data.trained_on()
        self.selected_on, self.unlabelled_on = data.selected_on(), data.unlabelled_on()
        self.steps_per_epoch, self.data = data.steps_per_epoch, data

    def _build_model(self, load_pretrained: bool) -> None:
        config, device = self.config, self.world.device
        torch.manual_seed(config.seed)
        model = build_model(config.model, len(self.train_set.classes), load_pretrained=load_pretrained)
        require_cameras(model, self.train_set.cameras, self.train_set.dataset_name)
        if load_pretrained and config.train.init_from is not None:
            self.ancestors = start_from(model, config.train.init_from, self.train_set.classes)
        model = self.method.learner(model, load_pretrained=load_pretrained)
        if config.train.sync_batchnorm and self.world.size > 1 and device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.held = freeze(model, config.train.freeze)
        lost = config.train.modality_dropout
        set_modality_dropout(model, lost.rgb if lost else 0.0, lost.thermal if lost else 0.0)
        place_network(model, config, device)
        self.model = model
        self.weights = Weights(model, self.method, self.world)
        if config.train.compile:
            compile_network(model)

    def _build_optimization(self) -> None:
        config = self.config
        classes = {"num_classes": len(self.train_set.classes), "ignore_index": self.train_set.ignore_index}
        weights = self.balance.find_weights
        objective = Objective(config.loss, config.auxiliary_loss, **classes, automatic_weights=weights)
        self.objective = objective.to(self.world.device)
        self.optimizer = OPTIMIZERS.create(config.optimizer, model=self.model)
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]  # groups may have rates of their own
        self.schedule = SCHEDULES.create(
            config.schedule, steps_per_epoch=self.steps_per_epoch, epochs=config.train.epochs
        )
        self.scaler = torch.amp.GradScaler(self.world.device.type, enabled=config.train.precision == "fp16")
        self.autocast = self.method.autocast = make_autocast(config, self.world.device)
        self.guard = StepGuard(self.model, self.optimizer, self.scaler, config.train.clip_grad_norm)
        self.skipped = 0  # of which the log tells already

    # --- the loop -----------------------------------------------------------------------------------------------------

    def fit(self) -> Progress:
        """Trains to the end, or to a stop that was asked for; returns where the run stands.

        Raises:
            NonFiniteError: Too many steps in a row gave numbers that are not finite. UserError: data that cannot be
                used. ``last.pt`` then holds the last good state.
        """
        with self.monitor, self.signals:
            self._train_epochs()
        return self.progress

    @property
    def stopped(self) -> bool:
        """Whether a signal ended the run before its end."""
        return self.interrupted and not self.finished

    @property
    def finished(self) -> bool:
        """Whether every epoch was trained and scored."""
        return self.progress.epoch >= self.config.train.epochs and not self.progress.pending

    def _train_epochs(self) -> None:
        if self.progress.pending:  # the run was stopped between training the epoch and scoring it
            self._select_epoch()
        while self.progress.epoch < self.config.train.epochs and not self._stop_reached():
            if not self.train_epoch(self.progress.epoch):
                break
            self._finish_epoch()

    def train_epoch(self, epoch: int) -> bool:
        """One pass over the training split from where it stands; False where it was stopped inside."""
        self.network.train()
        hold(self.held)
        batches = self.train_loader.epoch(epoch, start=self.progress.batch)
        self.monitor.watch.start()
        while group := self._next_group(batches):
            self.train_step(group)
            self.progress.step += 1
            self.progress.batch += len(group)
            self._after_step(group)
            if self.progress.batch < len(self.train_loader) and self._stop_reached():
                self.save_last()
                if not self.interrupted:
                    self._score_unfinished_epoch()
                return False
        self.monitor.log_time(self.progress)
        return not self.interrupted

    def _next_group(self, batches: Iterator[Batch]) -> list[Batch]:
        """The batches of one optimizer step; none at the end of the epoch, and where a signal came while loader
        processes hang."""
        try:
            with self.monitor.watch.part("data"):
                return list(islice(batches, self.config.train.accumulate))
        except NoBatch:
            if not (self.signals.asked() and self.world.size == 1):
                raise
            self.interrupted = True
            self.save_last()
            return []

    def train_step(self, group: list[Batch]) -> None:
        """One optimizer step over the batches of ``group``, whose gradients are averaged; none where the loss or a
        gradient is not finite."""
        lr = self._set_rates()
        self.guard.begin()
        for part, batch in enumerate(group):
            last = part == len(group) - 1
            with summing_gradients(self.network, last):
                with self.monitor.watch.part("forward"):
                    loss = self.guard.spread(self._forward(self.network, part, batch))
                with self.monitor.watch.part("backward"):
                    self.scaler.scale(loss / len(group)).backward()
        with self.monitor.watch.part("optimizer"):
            self.guard.finish()
            self.optimizer.zero_grad(set_to_none=True)
            self.method.after_step(self.model, self.progress.step)
            self.weights.follow()
        self.monitor.step_done(lr, images=sum(len(batch.names) for batch in group))

    def _forward(self, network: nn.Module, part: int, batch: Batch) -> torch.Tensor:
        seed_step(self.config.seed, self.progress.step, part, self.world.rank)
        images = Images.of(batch, self.world.device)
        try:
            loss, terms = self.method.loss(network, images, self.objective, self._epochs_done())
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            count, _, height, width = batch.rgb_B3HW.shape
            raise ConfigError(
                f"{count} image(s) of {height}x{width} leave BatchNorm a single value per channel at the deepest stage "
                "(1/32 of the size), which has no variance: raise train.batch_size or the size of the crops"
            ) from None
        self.meter.add({"loss": loss, **terms})
        return loss

    def _epochs_done(self) -> float:
        return self.progress.step / self.steps_per_epoch

    def _set_rates(self) -> float:
        return set_rates(self.optimizer, self.base_rates, self.schedule.factor(self.progress.step))

    def _after_step(self, group: list[Batch]) -> None:
        step = self.progress.step
        if self.guard.in_a_row() >= self.config.train.max_skipped_steps:
            raise self._diverged(group)
        if step % self.config.log.every_steps == 0:
            self._log_losses()
        every = self.config.checkpoint.every_steps
        if every is not None and step % every == 0 and self.progress.batch < len(self.train_loader):
            self.save_last()

    def _log_losses(self) -> None:
        means, skipped = self.meter.flush(self.world), self.guard.total()
        self.monitor.log_losses(self.progress, means, self.optimizer.param_groups[0]["lr"], skipped)
        if skipped > self.skipped:
            logger.warning("%d steps skipped since the last line: loss or gradients not finite", skipped - self.skipped)
        self.skipped = skipped

    def _diverged(self, group: list[Batch]) -> NonFiniteError:
        """The error of a run that has skipped too many steps; does the last of them again to find out where."""
        self.progress.step -= 1
        model = self.weights.alone(self.model).train()
        kept = {
            "config": self.config_text,
            "classes": len(self.train_set.classes),
            "ignore_index": self.train_set.ignore_index,
            "class_weights": self.balance.weights,
            "step": self.progress.step,
            "epochs": self._epochs_done(),
            "lr": self._set_rates(),
        }

        def forward(part: int, batch: Batch) -> torch.Tensor:
            return self.guard.spread(self._forward(model, part, batch))

        hold(freeze(model, self.config.train.freeze))
        return diverged(model, forward, group, self.world, self.run, kept)

    def _stop_reached(self) -> bool:
        limits, progress = self.config.train, self.progress
        if limits.stop_epoch is not None and progress.epoch >= limits.stop_epoch:
            return True
        if limits.max_steps is not None and progress.step >= limits.max_steps:
            return True
        # A validation that was interrupted has told all processes already; a vote would be known one step later.
        self.interrupted = self.interrupted or self.world.vote(self.signals.asked())
        return self.interrupted

    def _finish_epoch(self) -> None:
        """Saves the epoch before anything that can fail or be stopped, then lets it compete for ``best.pt``."""
        if self.progress.epoch + 1 == self.config.train.epochs and not self.meter.empty:
            self._log_losses()  # what is left of an interval
        self.progress.epoch += 1
        self.progress.batch = 0
        self.progress.pending = self._is_scored(self.progress.epoch)
        self.save_last()
        if self.progress.pending:
            self._select_epoch()

    def _is_scored(self, epoch: int) -> bool:
        if self.eval_loader is None or epoch == self.config.train.epochs:
            return True
        return epoch > self.config.eval.after and epoch % self.config.eval.every == 0

    def _select_epoch(self) -> None:
        """Scores the finished epoch and keeps it where it is the best one; nothing where a signal interrupts it."""
        evaluation = self.validate() if self.eval_loader is not None else None
        if self.eval_loader is not None and evaluation is None:
            return
        self.progress.pending = False
        if self._improves(evaluation):
            self.save_best()
        if self.progress.epoch == self.config.train.epochs:
            self.save_last()

    def _score_unfinished_epoch(self) -> None:
        """A run that ends inside an epoch is scored there. ``last.pt`` does not know of it, and what was best before is
        kept, so that a run that is continued equals one that never stopped."""
        evaluation = self.validate() if self.eval_loader is not None else None
        if self.eval_loader is not None and evaluation is None:
            return
        if self._improves(evaluation, epoch=self.progress.epoch + 1):
            if self.world.main and self.run.best.is_file():
                keep_second(self.run.best, self.run.best_of_epochs)
            self.save_best()

    # --- validation and checkpoints -----------------------------------------------------------------------------------

    def validate(self) -> Evaluation | None:
        """Scores the selection split and logs scores and pictures; None where a signal interrupted it."""
        assert self.eval_loader is not None and self.eval_set is not None, "eval.selection is `last`"
        self.weights.agree_on_buffers()
        model = self.weights.scored()
        evaluation = evaluate_model(
            model,
            self.eval_loader,
            self.eval_set,
            self.config,
            self.world,
            progress=self.monitor.validating(self.eval_loader.images),
            stop=self.signals.asked,
        )
        if evaluation is None:
            self.interrupted = True
            logger.info("validation interrupted; a resumed run begins with it")
            return None
        self.monitor.log_evaluation(self.progress, evaluation, self.config.eval.selection)
        for name, view in self.weights.views().items():
            other = evaluate_model(view, self.eval_loader, self.eval_set, self.config, self.world)
            if other is not None:
                self.monitor.log_view(self.progress, name, other)
        if self.world.main:
            self.monitor.log_pictures(model, self.eval_set, self.autocast, self.progress)
        return evaluation

    def _improves(self, evaluation: Evaluation | None, epoch: int | None = None) -> bool:
        """Whether the state is the best so far, by the primary rule of the data; always without a selection split."""
        score = evaluation.means()[self.config.eval.metric] if evaluation is not None else None
        best = self.progress.best_score
        if score is not None and (math.isnan(score) or (best is not None and score <= best)):
            return False
        self.progress.best_score, self.progress.best_epoch = score, epoch or self.progress.epoch
        return True

    def save_best(self) -> None:
        """Writes the evaluated weights."""
        weights = self.weights.scored_state()
        if self.world.main:
            save_checkpoint(self.run.best, {"model": weights, **description(self)})
        self.world.barrier()

    def save_last(self) -> None:
        """Writes everything needed to continue exactly; the state before it becomes ``previous.pt``."""
        self.weights.agree_on_buffers()
        weights, optimizer = self.weights.state(), whole(self.optimizer.state_dict(), keep=self.world.main)
        meters = self.world.gather(self.meter.state_dict())
        if self.world.main:
            content = {
                **weights,
                "optimizer": optimizer,
                "scaler": self.scaler.state_dict(),
                "meter": meters,
                "skipped": self.guard.state_dict(),
                "schedule": self.schedule.ends,
                "steps_per_epoch": self.steps_per_epoch,
                "identity": self.data.identity,
                **description(self),
            }
            sync_file(self.run.metrics)  # no state is newer than its log
            keep = self.run.previous if self.config.checkpoint.previous else None
            save_checkpoint(self.run.last, content, keep_as=keep)
        self.world.barrier()
