"""The training objective: weighted terms on the main logits and one term on each auxiliary head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from mdg.models.segmentor import SegmentationOutput
from mdg.ops.resize import resize_bilinear
from mdg.registry import LOSSES


class Objective(nn.Module):
    """Sum of the configured terms. The published one is
    ``0.5 Dice + 0.5 CE(smoothing 0.1) + 0.3 CE(aux rgb) + 0.3 CE(aux thermal)``.

    Args:
        terms: Options of the terms on the main logits, as ``loss:`` in a configuration.
        auxiliary: Of the term on each auxiliary head, as ``auxiliary_loss:``.
        num_classes: Number of classes.
        ignore_index: Label that counts nowhere.
        automatic_weights: Gives one weight per class, for terms with ``class_weights: auto``; called only for those.
    """

    def __init__(
        self,
        terms: Sequence[Any],
        auxiliary: Any,
        *,
        num_classes: int,
        ignore_index: int,
        automatic_weights: Callable[[], Sequence[float]] | None = None,
    ):
        super().__init__()
        context = {"num_classes": num_classes, "ignore_index": ignore_index, "automatic_weights": automatic_weights}
        self.terms = nn.ModuleList(LOSSES.create(options, **context) for options in terms)
        self.auxiliary = LOSSES.create(auxiliary, **context)

    def forward(self, output: SegmentationOutput, label_BHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective, a float32 scalar, and its terms by name, unweighted and without gradient."""
        size = label_BHW.shape[-2:]
        logits = resize_bilinear(output.logits, size)
        named = [(type(term).__name__, term, logits) for term in self.terms]
        for stream, auxiliary_logits in zip(("aux_rgb", "aux_thermal"), output.auxiliary, strict=False):
            named.append((stream, self.auxiliary, resize_bilinear(auxiliary_logits, size)))
        values = [term(term_logits, label_BHW) for _, term, term_logits in named]
        total = sum(term.weight * value for (_, term, _), value in zip(named, values, strict=True))
        names = _numbered([name for name, _, _ in named])
        return total, {name: value.detach() for name, value in zip(names, values, strict=True)}


def _numbered(names: list[str]) -> list[str]:
    """Names that occur more than once get a number: ``CrossEntropy``, ``CrossEntropy_2``."""
    counts = [names[: index + 1].count(name) for index, name in enumerate(names)]
    return [name if count == 1 else f"{name}_{count}" for name, count in zip(names, counts, strict=True)]
