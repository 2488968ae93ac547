"""The protocol: everything a score must say about how it was made. It travels with every table and file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Protocol:
    """What was scored, on which files, how, and how the checkpoint was chosen."""

    dataset: str
    split: str
    """Name of the split on disk."""
    images: int
    files_sha256: str
    """Hash over the names of the frames."""
    classes: tuple[str, ...]
    averaged_classes: tuple[str, ...]
    """Classes that take part in the means."""
    absent_class: str
    """What a class without a labelled pixel counts."""
    input_size: str
    """Size of the images given to the network; logits are resized to the label, never the label to the logits."""
    test_time_augmentation: str
    selection: str
    """How the checkpoint was chosen."""
    weights: str
    """`raw` or `ema` with its decay."""

    @property
    def honest(self) -> bool:
        """Whether the checkpoint was chosen without looking at the split that is scored."""
        return "SELECTED ON" not in self.selection

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            **asdict(self),
            "classes": list(self.classes),
            "averaged_classes": list(self.averaged_classes),
            "honest": self.honest,
        }

    def summary(self) -> str:
        """One line for the foot of a table."""
        return (
            f"{self.dataset} {self.split} ({self.images} images, {self.files_sha256[:8]}); mean over "
            f"{len(self.averaged_classes)} classes, {self.absent_class}; input {self.input_size}; "
            f"TTA {self.test_time_augmentation}; {self.weights} weights; {self.selection}"
        )


def selection_rule(selection: str, metric: str, scored_role: str, epoch: int) -> str:
    """Says how the checkpoint of ``epoch`` was chosen, loudly where that was on the split that is scored."""
    if selection == "last":
        return f"last epoch ({epoch})"
    loud = selection in ("test", "train") or selection == scored_role
    rule = f"best {metric} on {selection} (epoch {epoch})"
    return rule.replace(f"on {selection}", f"SELECTED ON {selection}") if loud else rule
