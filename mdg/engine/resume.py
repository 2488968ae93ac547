"""Continuing a run: which saved state is taken, and what may differ from the run it belongs to.

A resumed run equals an uninterrupted one only where configuration, code, data and number of processes are those of the
run. What cannot change a result may differ (:data:`FREE`), more epochs may be asked for; anything else is refused before
a file is touched, or taken with ``--allow-changes`` and named in the protocol of every later score.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mdg.config import RunConfig, dump_yaml
from mdg.config.yaml_tree import parse_yaml
from mdg.data import RGBTDataset
from mdg.engine.checkpoint import load_checkpoint, verify_checkpoint
from mdg.errors import ConfigError, UserError, WeightsError
from mdg.utils.environment import code_fingerprint, package_version
from mdg.utils.run_directory import RunDirectory
from mdg.utils.trees import ABSENT, differences, flatten

logger = logging.getLogger("mdg.train")

# Places, workers, logs, how often to save, where to stop: none of them changes what is computed.
FREE = re.compile(
    r"^(name|exp_dir|threads|process_timeout|log\..*|checkpoint\..*|ops\..*"
    r"|train\.(stop_epoch|max_steps|activation_checkpointing|max_skipped_steps)"
    r"|eval\.(pictures|batch_size|cuda_graphs)|pipeline\.(workers|prefetch|timeout)"
    r"|data\.(root|cache|cache_dir)|model\.pretrained.*)$"
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


def identity(config: RunConfig, train_set: RGBTDataset, eval_set: RGBTDataset | None, processes: int) -> dict[str, Any]:
    """What a run depends on besides its configuration, in plain values, for a checkpoint."""
    sets = {"train": train_set, **({"selection": eval_set} if eval_set is not None else {})}
    return {
        "processes": processes,
        "code": code_fingerprint(tuple(config.custom_imports)),
        "torch": package_version("torch"),
        "threads": torch.get_num_threads(),
        "root": str(getattr(train_set, "root", "")),
        "data": {role: dataset.content_state() for role, dataset in sets.items()},
    }


def newest_state(run: RunDirectory) -> tuple[dict[str, Any], str]:
    """The newest state of a run that is whole, and the name of its file; those that are damaged are named in the log.

    Raises:
        WeightsError: There is none.
    """
    reasons = []
    for file in (run.last, run.previous):
        if not file.is_file():
            continue
        try:
            verify_checkpoint(file)
            return load_checkpoint(file, training=True), file.name
        except UserError as error:
            reasons.append(str(error))
            logger.warning("skipped: %s", error)
    raise WeightsError(f"--resume {run.path}: no saved state can be read: {'; '.join(reasons) or 'none is there'}")


def find_changes(state: Mapping[str, Any], config: RunConfig, now: Mapping[str, Any]) -> list[Change]:
    """Everything in which a run that is resumed differs from the one that was saved."""
    before_tree = parse_yaml(state["config"], "configuration inside the checkpoint").values
    # Both through YAML: what is compared is what files say.
    now_tree = parse_yaml(dump_yaml(config), "the configuration").values
    changes = [Change(key, *pair) for key, pair in differences(flatten(before_tree), flatten(now_tree)).items()]
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
            changes.append(Change(f"data ({role} split)", "the files of the run", f"files of other {differing[0]}"))
    return changes


def accept(changes: list[Change], run: RunDirectory, allowed: bool) -> list[str]:
    """Logs what differs freely; the other changes as texts for the checkpoint.

    Raises:
        ConfigError: There are some, and they were not allowed.
    """
    for change in changes:
        if change.free:
            logger.info("resumed with %s", change)
    serious = [str(change) for change in changes if not change.free]
    if serious and not allowed:
        shown = "; ".join(serious[:6]) + (f"; and {len(serious) - 6} more" if len(serious) > 6 else "")
        raise ConfigError(
            f"--resume {run.path}: this would not be the run that was saved: {shown}. Leave these changes out for an "
            "exact resume, start a new run, or take them with --allow-changes: the protocol of every score then says so"
        )
    if serious:
        logger.warning("resumed with changes: %s", "; ".join(serious))
    return serious


def warn_of_environment(state: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Another PyTorch, or sums split among another number of threads, may give other bits: said, not refused."""
    for key, what in (("torch", "PyTorch"), ("threads", "CPU threads")):
        before = state["identity"].get(key, now[key])
        if before != now[key]:
            logger.warning("%s: %s when the run was saved, now %s; last bits may differ", what, before, now[key])


def value_before(changes: list[Change], key: str, default: Any) -> Any:
    """The value a key had in the run, where it has another one now."""
    found = next((change.before for change in changes if change.key == key), default)
    return default if found == ABSENT else found
