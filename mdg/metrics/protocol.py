"""The protocol: everything a score must say about how it was made. It travels with every table and file."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from mdg.errors import DataError
from mdg.metrics.scoring import rule_text

SELECTED_ON, TRAINED_ON = "SELECTED ON", "TRAINED ON"
UNSCORED = ("epoch",)  # says which of the checkpoints of a run this is, not how it was scored


@dataclass(frozen=True)
class Protocol:
    """What was scored, on which frames, by which rule, how, and how the checkpoint came to be.

    Two scores may stand in one column of a table only where :meth:`key` is equal.
    """

    dataset: str
    role: str
    """What the split is used for: train, val or test."""
    split: str
    """Name of the split on disk and what was taken out of it."""
    images: int
    files_sha256: str
    """Hash over the identities of the frames."""
    classes: tuple[str, ...]
    rule: str
    """Name of the scoring rule."""
    averaged_classes: tuple[str, ...]
    """Classes that take part in the means."""
    ignored_classes: tuple[str, ...]
    """Classes whose labelled pixels count nowhere."""
    absent_class: str
    """What a class without a labelled pixel counts."""
    preparation: str
    """How files became images."""
    input_size: str
    """Size of the images given to the network; logits are resized to the label, never the label to the logits."""
    mode: str
    """How an image goes through the network: "whole image", or in windows."""
    test_time_augmentation: str
    selection: str
    """How the checkpoint was chosen."""
    epoch: int
    """Epoch of the checkpoint; not a part of :meth:`key`."""
    weights: str
    """`raw` or `ema` with its decay."""
    precision: str
    trained_on: str
    """Split, number and hash of the training frames, and how many of them are scored."""
    changes: str = "none"
    """Settings that the run was resumed with although they were others before, and at which step."""

    @property
    def honest(self) -> bool:
        """Whether the scored frames had no part in training or choosing the checkpoint, as far as is known."""
        return not self.warnings()

    def warnings(self) -> list[str]:
        """What makes the score no honest test, in words that a title can carry; empty where it is one."""
        loud = [self.selection] if SELECTED_ON in self.selection else []
        seen = any(words in self.trained_on for words in (TRAINED_ON, SELECTED_ON))
        return [*loud, f"trained on {self.trained_on}"] if seen else loud

    def key(self) -> tuple[Any, ...]:
        """The values that two comparable scores share."""
        return tuple(getattr(self, name) for name in COMPARED)

    def comparable_with(self, other: Protocol) -> list[str]:
        """Names of the fields that make the two scores incomparable; empty where they may be compared."""
        return [name for name in COMPARED if getattr(self, name) != getattr(other, name)]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {**plain, "honest": self.honest}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str) -> Protocol:
        """The protocol that :meth:`as_dict` wrote; ``source`` names its file in messages.

        Raises:
            DataError: Fields are missing, or of the wrong kind.
        """
        known = {field.name: field for field in fields(cls)}
        missing = [name for name, field in known.items() if name not in values and field.default is MISSING]
        if missing:
            raise DataError(
                f"{source}: its protocol does not say {', '.join(missing)}, so another version of mdg wrote it; "
                "evaluate the checkpoint again with tools/val_mm.py"
            )
        given = {name: values[name] for name in known if name in values}
        for name, value in given.items():
            if not _KINDS[str(known[name].type)](value):
                raise DataError(f"{source}: protocol.{name}: got {reprlib.repr(value)}, expected {known[name].type}")
        fitting: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
        return cls(**fitting)

    def text(self) -> str:
        """One line that says everything but the names of the classes and the epoch."""
        rule = rule_text(self.averaged_classes, self.ignored_classes, self.absent_class)
        split = self.split if self.split == self.role else f"{self.split} as {self.role}"
        return (
            f"{self.dataset} {split} ({self.images} images, {self.files_sha256[:8]}, {self.preparation}); "
            f"{self.rule}: {rule}; input {self.input_size}; {self.mode}; "
            f"TTA {self.test_time_augmentation}; {self.weights} weights; {self.precision}; {self.selection}; "
            f"trained on {self.trained_on}" + (f"; changed on resume: {self.changes}" if self.changes != "none" else "")
        )

    def summary(self) -> str:
        """:meth:`text` with the epoch, for the foot of a table."""
        return f"{self.text()}; epoch {self.epoch}"


# By the annotations of the fields; lists are what JSON makes of tuples.
_KINDS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "tuple[str, ...]": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
}
COMPARED = tuple(field.name for field in fields(Protocol) if field.name not in UNSCORED)


def selection_rule(
    selection: str, metric: str, scored_role: str, where: str | None = None, overlap: tuple[int, int] | None = None
) -> str:
    """Says how a checkpoint was chosen, loudly where the frames that are scored had a part in it.

    Args:
        selection: Role of the split that chose: "val", "test", "train", or "last".
        metric: Score that chose.
        scored_role: Role of the split that is scored.
        where: The split that chose, where its role does not say it all.
        overlap: Number of scored frames that chose, and of scored frames; None where that is not known, and the roles
            decide.
    """
    if selection == "last":
        return "last epoch"
    shared = selection == scored_role if overlap is None else overlap[0] > 0
    # Choosing on test or train is shouted whatever is scored: `eval.selection: test` must never pass unseen.
    loud = shared or selection in ("test", "train")
    counts = f" ({overlap[0]} of {overlap[1]} scored frames)" if loud and overlap else ""
    return f"best {metric} {SELECTED_ON if loud else 'on'} {where or selection}{counts}"


def training_rule(where: str, frames: int, sha256: str, overlap: tuple[int, int]) -> str:
    """Says which frames trained a checkpoint, loudly where some of them are scored.

    Args:
        where: Name of the split.
        frames, sha256: Number and hash of its frames.
        overlap: Number of scored frames that trained, and of scored frames.
    """
    text = f"{where} ({frames} frames, {sha256[:8]})"
    return f"{text}, {TRAINED_ON} {overlap[0]} of the {overlap[1]} scored frames" if overlap[0] else text
