"""Starting a run from the weights of another one: what fits is taken, of classifiers the rows of classes by name."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mdg.engine.checkpoint import load_checkpoint, scored_weights
from mdg.errors import NonFiniteError, WeightsError, first_few
from mdg.models.weight_files import first_non_finite

logger = logging.getLogger("mdg.train")
SHOWN = 4


@dataclass
class Fit:
    """What became of the tensors of a network.

    Attributes:
        taken: Tensors that are now those of the checkpoint.
        mapped: Tensors of classifiers, whose rows of classes with equal names are now those of the checkpoint.
        fresh: Tensors that keep their initial values, with the reason.
        unused: Tensors of the checkpoint that the network does not have.
    """

    taken: list[str] = field(default_factory=list)
    mapped: list[str] = field(default_factory=list)
    fresh: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)


def start_from(model: nn.Module, file: Path, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Takes the weights of a checkpoint as far as they fit (the moving average where it holds one), and logs what was
    taken.

    Args:
        model: The network; changed.
        file: A ``best.pt`` or ``last.pt``.
        classes: Of the data that will train it.

    Returns:
        The frame sets that had a part in these weights, for the protocols of later scores.

    Raises:
        WeightsError: No checkpoint, or one of which nothing fits. NonFiniteError: It holds NaN or infinity.
    """
    state = load_checkpoint(file)
    weights = scored_weights(state)
    if (name := first_non_finite(weights)) is not None:
        raise NonFiniteError(f"train.init_from {file}: {name} holds NaN or infinity; take another checkpoint")
    fit = fit_tensors(model, weights, state["classes"], classes)
    if not fit.taken:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(fit.fresh.items())[:SHOWN])
        raise WeightsError(
            f"train.init_from {file}: none of its {len(weights)} tensors fits the network of the configuration "
            f"({reasons}): use the `model` it was trained with (config.yaml of its run)"
        )
    logger.info("started from %s: %s", file, _told(fit, state["classes"], classes))
    frames = [state.get("trained_on"), state.get("selected_on"), *state.get("ancestors", [])]
    return [one for one in frames if one is not None]


@torch.no_grad()
def fit_tensors(
    model: nn.Module, given: Mapping[str, Tensor], old_classes: Sequence[str], new_classes: Sequence[str]
) -> Fit:
    """Copies tensors of the same name, shape and kind of number; of the two tensors of a ``classifier`` the rows of the
    classes that have a name in common, where the classes are not the same."""
    fit, own = Fit(), model.state_dict()
    rows = {new: old_classes.index(name) for new, name in enumerate(new_classes) if name in old_classes}
    same_classes = list(old_classes) == list(new_classes)
    for name, value in own.items():
        other = given.get(name)
        classifier = "classifier" in name.split(".")[:-1]
        if other is None:
            fit.fresh[name] = "not in the checkpoint"
        elif value.is_floating_point() != other.is_floating_point():
            fit.fresh[name] = f"{other.dtype} there, {value.dtype} here"
        elif classifier and not same_classes and _by_class(value, other, len(new_classes), len(old_classes)):
            for new, old in rows.items():
                value[new] = other[old]
            fit.mapped.append(name)
        elif value.shape != other.shape:
            fit.fresh[name] = f"{tuple(other.shape)} there, {tuple(value.shape)} here"
        else:
            value.copy_(other)
            fit.taken.append(name)
    fit.unused = [name for name in given if name not in own]
    return fit


def _by_class(value: Tensor, other: Tensor, new: int, old: int) -> bool:
    return (
        value.dim() > 0
        and value.shape[:1] == (new,)
        and other.shape[:1] == (old,)
        and value.shape[1:] == other.shape[1:]
    )


def _told(fit: Fit, old_classes: Sequence[str], new_classes: Sequence[str]) -> str:
    parts = [f"{len(fit.taken)} tensors taken"]
    if fit.mapped:
        kept = [name for name in new_classes if name in old_classes]
        new = [name for name in new_classes if name not in old_classes]
        parts.append(f"classifier rows of {', '.join(kept) or 'no class'} taken by name")
        parts += [f"{', '.join(new)} new"] if new else []
    if fit.fresh:
        shown = first_few([f"{name} ({why})" for name, why in fit.fresh.items()], SHOWN, "; ")
        parts.append(f"{len(fit.fresh)} left as initialised: {shown}")
    if fit.unused:
        parts.append(f"{len(fit.unused)} of the checkpoint not used, such as {fit.unused[0]}")
    return "; ".join(parts)
