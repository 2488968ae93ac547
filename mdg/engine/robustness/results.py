"""Cells put together: what every network retains, in all, by day and by night, and of the objects of each camera."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mdg.data.corruptions import Corruption
from mdg.engine.robustness.plan import GROUPS, group_of
from mdg.engine.robustness.summary import CorruptionErrors, Retained, Scores, corruption_errors, retained, share_lost
from mdg.metrics import Protocol
from mdg.metrics.visibility import SHOWN_IN

Cell = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """One network, measured.

    Attributes:
        name: Of the run.
        checkpoint: Its file.
        sha256: Of that file.
        setting: Hash of the setting in which it was measured.
        clean: The cell without corruption.
        cells: The others, by name of the corruption and severity.
    """

    name: str
    checkpoint: str
    sha256: str
    setting: str
    clean: Cell
    cells: dict[str, dict[float, Cell]]

    @property
    def protocol(self) -> Protocol:
        """Of the clean score."""
        return protocol_of(self.clean)

    def scores(self, of: Callable[[Cell], float]) -> Scores:
        """A score of every cell."""
        return {
            name: {severity: of(cell) for severity, cell in by_severity.items()}
            for name, by_severity in self.cells.items()
        }

    def retained(self, of: Callable[[Cell], float]) -> Retained:
        """What remains of a score."""
        return retained(of(self.clean), self.scores(of))

    def conditions(self) -> list[str]:
        """Day, night: those that the data set tells apart."""
        return [name for name in self.clean["groups"] if name not in SHOWN_IN]

    def kinds(self) -> list[str]:
        """Kinds of objects that were scored apart, by what shows them."""
        return list(self.clean["found"])


@dataclass(frozen=True)
class Robustness:
    """Networks side by side.

    Attributes:
        runs: In the order in which they were named.
        corruptions: That were measured.
        severities: Rising.
        seed: Of the corruptions.
        reference: Place of the run that errors are given against; None where none was named.
    """

    runs: list[Measured]
    corruptions: list[Corruption]
    severities: list[float]
    seed: int
    reference: int | None = None

    def groups(self) -> list[str]:
        """Groups of which a corruption was measured."""
        found = {group_of(type(corruption).__name__) for corruption in self.corruptions}
        return [group for group in GROUPS if group in found]

    def cameras(self) -> list[str]:
        """Cameras of which a corruption was measured."""
        return list(self.runs[0].retained(miou).cameras)

    def errors(self, run: Measured) -> CorruptionErrors | None:
        """Of a run against the reference; None without one."""
        if self.reference is None:
            return None
        other = self.runs[self.reference]
        return corruption_errors(miou(run.clean), run.scores(miou), miou(other.clean), other.scores(miou))


def protocol_of(cell: Cell) -> Protocol:
    """The protocol of a cell."""
    return Protocol.from_dict(cell["protocol"], "a cell")


def miou(cell: Cell) -> float:
    """mIoU under the primary rule, per cent."""
    return number(cell["scores"]["mIoU"])


def miou_in(condition: str) -> Callable[[Cell], float]:
    """The same over the frames of a condition."""
    return lambda cell: number(cell["groups"][condition]["scores"]["mIoU"])


def found(kind: str) -> Callable[[Cell], float]:
    """The share of the pixels of a kind of objects that got their class, per cent."""
    return lambda cell: number(cell["found"].get(kind))


def lost(run: Measured, kind: str) -> Retained:
    """What is no longer found of a kind of objects, in per cent of what is found without corruption."""
    whole = run.retained(found(kind))

    def of(value: float) -> float:
        return share_lost(whole.clean, value)

    return Retained(
        whole.clean,
        {name: of(value) for name, value in whole.corruptions.items()},
        {name: of(value) for name, value in whole.groups.items()},
        {name: of(value) for name, value in whole.cameras.items()},
        of(whole.mpc),
        whole.rpc,
    )


def number(value: float | None) -> float:
    """NaN of what JSON has as null."""
    return math.nan if value is None else float(value)


def as_tree(robustness: Robustness, environment: dict[str, Any]) -> dict[str, Any]:
    """Everything as plain values, for ``robustness.json``; per cent."""
    reference = robustness.reference
    return {
        "format": 1,
        "severities": robustness.severities,
        "seed": robustness.seed,
        "reference": None if reference is None else robustness.runs[reference].name,
        "corruptions": [
            {
                "name": one.name,
                "type": type(one).__name__,
                "camera": one.camera,
                "group": group_of(type(one).__name__),
                "unit": one.unit,
                "strengths": [one.strength(severity) for severity in robustness.severities],
            }
            for one in robustness.corruptions
        ],
        "runs": [_run_tree(robustness, run) for run in robustness.runs],
        "environment": environment,
    }


def _run_tree(robustness: Robustness, run: Measured) -> dict[str, Any]:
    errors = robustness.errors(run)
    return {
        "name": run.name,
        "checkpoint": run.checkpoint,
        "checkpoint_sha256": run.sha256,
        "setting": run.setting,
        "protocol": run.protocol.as_dict(),
        "summary": vars(run.retained(miou)),
        "errors": None if errors is None else vars(errors),
        "conditions": {name: vars(run.retained(miou_in(name))) for name in run.conditions()},
        "objects": {
            kind: {"found": vars(run.retained(found(kind))), "lost": vars(lost(run, kind))} for kind in run.kinds()
        },
        "clean": _cell_tree(run.clean),
        "cells": [
            {"corruption": name, "severity": severity, **_cell_tree(cell)}
            for name, by_severity in run.cells.items()
            for severity, cell in by_severity.items()
        ],
    }


def _cell_tree(cell: Cell) -> dict[str, Any]:
    return {
        "scores": cell["scores"],
        "rules": {name: rule["scores"] for name, rule in cell["rules"].items()},
        "groups": {name: group["scores"] for name, group in cell["groups"].items()},
        "found": cell["found"],
        "iou": {row["class"]: row["iou"] for row in cell["per_class"]},
        "protocol": protocol_of(cell).text(),
    }


def shown_severities(severities: Sequence[float]) -> list[float]:
    """At most three of the severities to show as pictures: the lowest, a middle one and the highest."""
    places = sorted({0, (len(severities) - 1) // 2, len(severities) - 1})
    return [severities[place] for place in places]
