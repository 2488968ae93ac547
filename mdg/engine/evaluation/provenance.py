"""Which frames trained and chose a checkpoint, and what a protocol must therefore say about its scores.

A *frame set* is what a checkpoint stores about a split, in plain values: ``dataset``, ``role``, ``split`` (its label),
``sha256`` and ``identities`` (a name per frame that no other frame of the data set has). Overlap is counted by
identity, so it is found whatever the splits are called.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdg.config.yaml_tree import parse_yaml
from mdg.data import RGBTDataset
from mdg.data.reading.names import name_bytes
from mdg.errors import ConfigError, WeightsError
from mdg.metrics.protocol import SELECTED_ON, TRAINED_ON, selection_rule, training_rule
from mdg.utils.typed import Content, Text, require

FrameSet = dict[str, Any]
UNKNOWN = "unknown frames (a checkpoint of an older version)"


@dataclass(frozen=True)
class Provenance:
    """How weights came to be, in the words of the protocol; ``epoch`` counts from 1."""

    selection: str
    epoch: int
    weights: str
    trained_on: str
    changes: str = "none"


def frame_set(dataset: RGBTDataset) -> FrameSet:
    """The frame set of a split."""
    return {
        "dataset": dataset.dataset_name,
        "role": dataset.split,
        "split": dataset.split_label,
        "sha256": dataset.fingerprint(),
        "identities": dataset.identities(),
    }


def joined(before: FrameSet | None, now: FrameSet | None) -> FrameSet | None:
    """The frames that had a part before a run was resumed and have one now: a resume with other splits hides nothing.

    Raises:
        ConfigError: Frames of two data sets.
    """
    if before is None or now is None or all(before[key] == now[key] for key in ("dataset", "role", "sha256")):
        return now
    if before["dataset"] != now["dataset"]:
        raise ConfigError(
            f"--resume: the run was started on {before['dataset']}, now data.type is {now['dataset']}; a run continues "
            "on its own data set: leave --opts data... out, or start a new run"
        )
    identities = sorted({*before["identities"], *now["identities"]})
    return {
        **now,
        # What was chosen on test stays chosen on test.
        "role": min(before["role"], now["role"], key=("test", "train", "val").index),
        "split": f"{before['split']}, then {now['split']}",
        "sha256": hashlib.sha256(name_bytes("\n".join(identities))).hexdigest(),
        "identities": identities,
    }


def overlap(frames: FrameSet, dataset: RGBTDataset) -> tuple[int, int]:
    """How many of the frames of ``dataset`` are in ``frames``, and how many it has. None in another data set."""
    scored = dataset.identities()
    known = set(frames["identities"]) if frames["dataset"] == dataset.dataset_name else set()
    return sum(name in known or pseudonym(name) in known for name in scored), len(scored)


def pseudonym(identity: str) -> str:
    """What stands for a frame in weights that are passed on: it is known again, and its name is not told."""
    return "#" + hashlib.sha256(name_bytes(identity)).hexdigest()[:16]


def without_names(frames: FrameSet) -> FrameSet:
    """The frame set with pseudonyms."""
    return {**frames, "identities": [pseudonym(name) for name in frames["identities"]]}


def provenance(state: Mapping[str, Any], checkpoint: Path, dataset: RGBTDataset) -> Provenance:
    """What a protocol says about the weights in ``state`` when they are scored on ``dataset``.

    Args:
        state: Content of a checkpoint. Older ones do not know their frames; the roles of the splits then decide.
        checkpoint: Its file, for messages.
        dataset: The split that is scored.
    """
    config = trained_config(state, checkpoint)
    ema = config["train"].get("ema_decay")
    return Provenance(
        selection=_selection(state, config, dataset),
        epoch=state["progress"]["epoch"],
        weights=(f"ema {ema}" if ema else "raw") + (f" {state['rounded']}" if state.get("rounded") else ""),
        trained_on="; ".join([_training(state, dataset), *_without_labels(state, dataset), *_ancestry(state, dataset)]),
        changes="; ".join(state.get("changes", [])) or "none",
    )


class _Train(Content):
    ema_decay: float | None = None


class _Eval(Content):
    selection: Text
    metric: Text


class TrainedConfig(Content):
    """What a protocol needs of the configuration of a run; the whole may be of another version."""

    seed: int
    train: _Train
    eval: _Eval


def trained_config(state: Mapping[str, Any], checkpoint: Path) -> dict[str, Any]:
    """The resolved configuration of the run that made a checkpoint, as a plain tree.

    Raises:
        ConfigError: It is no mapping in YAML. WeightsError: it is no configuration.
    """
    source = f"configuration inside {checkpoint}"
    tree = parse_yaml(state["config"], source).values
    require(TrainedConfig, tree, source, "it is no whole configuration of mdg", WeightsError)
    return tree


def _selection(state: Mapping[str, Any], config: Mapping[str, Any], dataset: RGBTDataset) -> str:
    rule, metric = config["eval"]["selection"], config["eval"]["metric"]
    # `last.pt` (the one with an optimizer) is the last state whatever the run selected on.
    if "optimizer" in state or state.get("last") or rule == "last":
        return selection_rule("last", metric, dataset.split)
    frames = state.get("selected_on")
    if frames is None:
        return selection_rule(rule, metric, dataset.split)
    return selection_rule(frames["role"], metric, dataset.split, _where(frames, dataset), overlap(frames, dataset))


def _training(state: Mapping[str, Any], dataset: RGBTDataset) -> str:
    frames = state.get("trained_on")
    if frames is None:
        return f"{UNKNOWN}, {TRAINED_ON} the scored split" if dataset.split == "train" else UNKNOWN
    where = _where({**frames, "role": frames["split"]}, dataset)
    return training_rule(where, len(frames["identities"]), frames["sha256"], overlap(frames, dataset))


def _without_labels(state: Mapping[str, Any], dataset: RGBTDataset) -> list[str]:
    """What is to be said of frames that trained without their labels."""
    told = []
    for frames in state.get("unlabelled", []):
        shared, where = overlap(frames, dataset), _where({**frames, "role": frames["split"]}, dataset)
        text = f"without labels on {where} ({len(frames['identities'])} frames, {frames['sha256'][:8]})"
        told.append(f"{text}, {shared[0]} of the {shared[1]} scored frames AMONG THEM" if shared[0] else text)
    return told


def _ancestry(state: Mapping[str, Any], dataset: RGBTDataset) -> list[str]:
    """What is to be said of the weights that the run started from."""
    told = []
    for frames in state.get("ancestors", []):
        shared, where = overlap(frames, dataset), _where({**frames, "role": frames["split"]}, dataset)
        if frames["role"] == "train":
            rule = training_rule(where, len(frames["identities"]), frames["sha256"], shared)
            told.append(f"started from weights of {rule}")
        elif shared[0]:
            told.append(f"started from weights {SELECTED_ON} {where} ({shared[0]} of {shared[1]} scored frames)")
    return told


def _where(frames: FrameSet, dataset: RGBTDataset) -> str:
    split = frames["split"] if frames["split"] == frames["role"] else f"{frames['split']} as {frames['role']}"
    return split if frames["dataset"] == dataset.dataset_name else f"{frames['dataset']} {split}"
