"""Continuing a run: which saved state is taken, and what may differ from the run it belongs to.

A resumed run equals an uninterrupted one only where configuration, code, data and number of processes are those of the
run. What cannot change a result may differ (:data:`FREE`), more epochs may be asked for; anything else is refused
before a file is touched, or taken with ``--allow-changes`` and named in the protocol of every later score.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mdg.config import RunConfig, dump_yaml
from mdg.config.load import ABSENT, differences, flatten
from mdg.config.yaml_tree import parse_yaml
from mdg.data import RGBTDataset
from mdg.engine.checkpoint import load_checkpoint
from mdg.engine.evaluation.provenance import joined
from mdg.engine.sharding import split_state
from mdg.engine.state import Progress
from mdg.errors import ConfigError, UserError, WeightsError, first_few
from mdg.ops.measured import measured_at
from mdg.utils.environment import code_fingerprint, package_version
from mdg.utils.run_directory import RunDirectory

if TYPE_CHECKING:
    from mdg.engine.trainer import Trainer

logger = logging.getLogger("mdg.train")

# Places, workers, logs, how often to save, where to stop: none of them changes what is computed.
FREE = re.compile(
    r"^(name|exp_dir|threads|process_timeout|log\..*|checkpoint\..*|ops\..*"
    r"|train\.(stop_epoch|max_steps|activation_checkpointing|max_skipped_steps)"
    r"|eval\.(pictures|batch_size|cuda_graphs)|pipeline\.(workers|prefetch|timeout)"
    r"|data\.(root(\.\d+)?|cache|cache_dir|cache_gib)|model\.pretrained.*)$"
)
EPOCHS = "train.epochs"


@dataclass(frozen=True)
class Change:
    """One thing that is not as the run was started: its dotted key or name, and both values."""

    key: str
    before: Any
    now: Any

    @property
    def free(self) -> bool:
        """Whether it may differ without a word in the protocol."""
        more = self.key == EPOCHS and isinstance(self.before, int) and self.now > self.before
        return more or bool(FREE.match(self.key))

    def __str__(self) -> str:
        return f"{self.key} {self.before} to {self.now}"


@dataclass(frozen=True)
class SavedRun:
    """A state that is about to be continued.

    Attributes:
        state: Content of the checkpoint.
        file: Where it was read.
        changes: Everything that is not as it was when it was saved.
        serious: Those of it that change results, in words; they were allowed.
    """

    state: dict[str, Any]
    file: Path
    changes: list[Change]
    serious: list[str]

    def changed(self, prefix: str) -> bool:
        """Whether a key that begins so differs."""
        return any(change.key.startswith(prefix) for change in self.changes)

    def before(self, key: str, now: Any) -> Any:
        """The value of a key in the run, ``now`` where it has not changed."""
        found = next((change.before for change in self.changes if change.key == key), now)
        return now if found == ABSENT else found

    @property
    def all_changes(self) -> list[str]:
        """What was allowed now and at earlier resumes, for the protocol."""
        step = self.state["progress"]["step"]
        return [*self.state.get("changes", []), *(f"step {step}: {text}" for text in self.serious)]

    def batch(self, config: RunConfig, processes: int, batches: int) -> int:
        """Batches of the epoch that are done, of the size of now: the images they held, where that changed."""
        done = self.state["progress"]["batch"]
        before, now = self._images(config, processes)
        return min(done * before // now, max(0, batches - 1)) if done else 0

    def _images(self, config: RunConfig, processes: int) -> tuple[int, int]:
        """Images of a batch of all processes, before and now."""
        before = self.before("train.batch_size", config.train.batch_size) * self.before("processes", processes)
        return before, config.train.batch_size * processes

    def restore_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Its state, under the options of the configuration and not those of the checkpoint."""
        if self.changed("optimizer.type"):
            logger.warning("the optimizer starts anew, without the state of the one before")
            return
        # The rate is set by the schedule before every step; until then it is that of the last one.
        kept = ("params", "lr")
        options = [{key: group[key] for key in group if key not in kept} for group in optimizer.param_groups]
        try:
            optimizer.load_state_dict(split_state(self.state["optimizer"], optimizer))
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{self.file}: its optimizer does not fit this one ({error})") from None
        for group, own in zip(optimizer.param_groups, options, strict=True):
            group.update(own)

    def restore_schedule(self, trainer: Trainer) -> None:
        """Where it stands, where it ends, and where it was to end before; raises ConfigError where nothing of it is
        left.

        The progress of the trainer is in batches of now. Where these are larger or smaller than before, the place in
        the epochs counts and not the number of steps.
        """
        schedule, config, progress = trainer.schedule, trainer.config, trainer.progress
        steps_per_epoch = trainer.steps_per_epoch
        position = progress.epoch * steps_per_epoch + progress.batch // config.train.accumulate
        schedule.offset = progress.step - position
        ends = [[0, self.before(EPOCHS, config.train.epochs) * steps_per_epoch]]
        if self.state.get("schedule"):
            saved = self.state["steps_per_epoch"] or self._earlier_steps(trainer)
            ends = [[round(step * steps_per_epoch / saved) for step in end] for end in self.state["schedule"]]
        if self.changed("schedule."):
            ends = [[0, schedule.total]]
        schedule.continue_from(position, ends, jump=bool(self.serious))
        if ends[-1][1] != schedule.total:
            before, now = (end + schedule.offset for end in (ends[-1][1], schedule.total))
            logger.info("the schedule now ends at step %d, not %d", now, before)

    def _earlier_steps(self, trainer: Trainer) -> int:
        """Steps per epoch as the run was saved, for checkpoints that do not say: from the images of a step."""
        accumulate = trainer.config.train.accumulate
        before, now = self._images(trainer.config, trainer.world.size)
        before *= self.before("train.accumulate", accumulate)
        return max(1, round(trainer.steps_per_epoch * now * accumulate / before))


def open_saved(run: RunDirectory, config: RunConfig, now: Mapping[str, Any], allow_changes: bool) -> SavedRun:
    """The newest whole state of a run, compared with what shall continue it.

    Args:
        run: The run; nothing in it is changed.
        config: What shall continue it.
        now: Its :func:`identity`.
        allow_changes: Take changes that make it another run.

    Raises:
        ConfigError: It would be another run. WeightsError: no state can be read.
    """
    state, file = newest_state(run)
    changes = _find_changes(state, config, now)
    serious = _accept(changes, run, allow_changes)
    _warn_of_environment(state, now)
    return SavedRun(state, file, changes, serious)


def restore(trainer: Trainer, saved: SavedRun) -> None:
    """Puts a trainer that was built anew where the saved run stands, and takes out of the log what comes later."""
    state = saved.state
    trainer.weights.load(state, saved.file)
    trainer.progress = Progress.of(state["progress"])
    trainer.progress.batch = saved.batch(trainer.config, trainer.world.size, len(trainer.train_loader))
    saved.restore_optimizer(trainer.optimizer)
    if state["scaler"] and trainer.scaler.is_enabled():
        trainer.scaler.load_state_dict(state["scaler"])
    trainer.guard.load_state_dict(state.get("skipped", {}))
    trainer.skipped = trainer.guard.total()
    saved.restore_schedule(trainer)
    if not saved.changed("processes"):
        trainer.meter.load_state_dict(state["meter"][trainer.world.rank], trainer.world.device)
    trainer.changes = saved.all_changes
    trainer.ancestors = state["ancestors"]
    trainer.trained_on = joined(state.get("trained_on"), trainer.trained_on)
    trainer.selected_on = joined(state.get("selected_on"), trainer.selected_on)
    trainer.world.barrier()  # all have read what they need before the main process changes a file
    if trainer.world.main:
        inside = trainer.progress.batch > 0
        trainer.run.truncate_metrics(trainer.progress.step, evaluated=not (inside or trainer.progress.pending))
        if inside:
            trainer.run.forget_unfinished_best()
    logger.info("resumed from %s at epoch %d, step %d", saved.file.name, trainer.progress.epoch, trainer.progress.step)


def identity(
    config: RunConfig,
    train_set: RGBTDataset,
    eval_set: RGBTDataset | None,
    processes: int,
    unlabelled: Sequence[RGBTDataset] = (),
) -> dict[str, Any]:
    """What a run depends on besides its configuration, in plain values, for a checkpoint."""
    sets = {"train": train_set, **({"selection": eval_set} if eval_set is not None else {})}
    sets |= {f"unlabelled {number}": dataset for number, dataset in enumerate(unlabelled, start=1)}
    return {
        "processes": processes,
        "code": code_fingerprint(tuple(config.custom_imports)),
        "torch": package_version("torch"),
        "threads": torch.get_num_threads(),
        "measured": measured_at(),
        "root": str(getattr(train_set, "root", "")),
        "data": {role: dataset.content_state() for role, dataset in sets.items()},
    }


def newest_state(run: RunDirectory) -> tuple[dict[str, Any], Path]:
    """The newest state of a run that is whole, and its file; those that are damaged are named in the log.

    Raises:
        WeightsError: There is none.
    """
    reasons = []
    for file in (run.last, run.previous):
        if not file.is_file():
            continue
        try:
            return load_checkpoint(file, training=True), file
        except UserError as error:
            reasons.append(str(error))
            logger.warning("skipped: %s", error)
    raise WeightsError(f"--resume {run.path}: no saved state can be read: {'; '.join(reasons) or 'none is there'}")


def _find_changes(state: Mapping[str, Any], config: RunConfig, now: Mapping[str, Any]) -> list[Change]:
    """Everything in which a run that is resumed differs from the one that was saved."""
    before_tree = parse_yaml(state["config"], "configuration inside the checkpoint").values
    # Both through YAML: what is compared is what files say.
    now_tree = parse_yaml(dump_yaml(config), "the configuration").values
    changed = differences(flatten(before_tree), flatten(now_tree))
    # Another type first: the options of both types follow from it.
    changes = [Change(key, *changed[key]) for key in sorted(changed, key=lambda key: not key.endswith(".type"))]
    before = state["identity"]
    if not before:  # a checkpoint of an older version tells the number of processes only
        before = {"processes": state["world_size"]}
    changes += [
        Change(key, before[key], now[key]) for key in ("processes", "code") if before.get(key, now[key]) != now[key]
    ]
    return changes + _data_changes(before, now)


def _data_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    changes = []
    for role, content in now["data"].items():
        known = before.get("data", {}).get(role)
        if known is None:
            continue
        # A copy elsewhere has other times; files that changed in their place have them too, and those are meant.
        parts = ["names", "sizes", *(["times"] if before["root"] == now["root"] else [])]
        differing = [part for part in parts if known.get(part) != content.get(part)]
        if differing:
            hint = " (`cp -a`, `rsync -a` and tar keep them in a copy)" if differing[0] == "times" else ""
            changes.append(
                Change(f"data ({role} split)", "the files of the run", f"files of other {differing[0]}{hint}")
            )
    return changes


def _accept(changes: list[Change], run: RunDirectory, allowed: bool) -> list[str]:
    """Logs what differs freely; the other changes as texts for the checkpoint.

    Raises:
        ConfigError: There are some, and they were not allowed.
    """
    for change in changes:
        if change.free:
            logger.info("resumed with %s", change)
    serious = [str(change) for change in changes if not change.free]
    if serious and not allowed:
        raise ConfigError(
            f"--resume {run.path}: this would not be the run that was saved: "
            f"{first_few(serious, 6, '; ')}. Leave these changes out for an exact resume, start a new run, or take "
            "them with --allow-changes: the protocol of every score then says so"
        )
    if serious:
        logger.warning("from here on another run, not bit for bit the one that was saved: %s", "; ".join(serious))
    return serious


def _warn_of_environment(state: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Another PyTorch, sums split among another number of threads, or backends chosen by other times (another machine,
    or a ``backends.json`` that is gone) may give other bits: said, not refused."""
    facts = (("torch", "PyTorch"), ("threads", "CPU threads"), ("measured", "backends were measured"))
    for key, what in facts:
        before = state["identity"].get(key, now[key])
        if before != now[key]:
            logger.warning("%s: %s when the run was saved, now %s; last bits may differ", what, before, now[key])
