"""Results of evaluations with invented counts, of three classes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from mdg.engine.evaluation.scores import Evaluation
from mdg.metrics import ConfusionMatrix, Protocol, ScoringRule
from mdg.metrics.scoring import all_classes

CLASSES = ("road", "car", "person")
RULES = (all_classes(CLASSES, "C"), ScoringRule("A", CLASSES[1:], ("road",), 0.0))
CONFIG = {
    "name": "net",
    "seed": 0,
    "exp_dir": "exp",
    "device": "cpu",
    "threads": 2,
    "data": {"type": "Synthetic", "cache": "none"},
    "pipeline": {"workers": 4, "prefetch": 2, "train": [{"type": "HorizontalFlip", "p": 0.5}]},
    "model": {"width": 8},
}


def protocol(**changes) -> Protocol:
    text = dict.fromkeys(Protocol.__dataclass_fields__, "x")
    rule = {"rule": "C", "averaged_classes": CLASSES, "ignored_classes": (), "absent_class": RULES[0].absent_text}
    known = {"classes": CLASSES, "images": 4, "selection": "best mIoU on val", "trained_on": "train"}
    return Protocol(**{**text, **known, **rule, **changes})


def counts(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 100, (3, 3))


def invented_result(
    name: str, seed: int = 1, config: dict | None = None, matrix=None, rules=RULES, **changes
) -> dict[str, Any]:
    """The content of a results.json, ``changes`` in its protocol."""
    matrix = counts(seed) if matrix is None else matrix
    groups = {group: ConfusionMatrix(3, matrix // part) for part, group in ((2, "day"), (3, "night"))}
    evaluation = Evaluation(CLASSES, rules, ConfusionMatrix(3, matrix), groups, None, None, 4)
    return {
        "format": 2,
        **evaluation.as_dict(protocol(epoch=seed, **changes)),
        "checkpoint": f"{name}.pt",
        "checkpoint_sha256": name,
        "seed": seed,
        "training_processes": 1,
        "config": {**copy.deepcopy(CONFIG), "seed": seed, "name": "net", **(config or {})},
    }
