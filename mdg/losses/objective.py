"""The training objective: weighted terms on the main logits and one term on each auxiliary head."""

from __future__ import annotations

from torch import Tensor, nn

from mdg.config import RunConfig
from mdg.models.layers import resize_bilinear
from mdg.models.segmentor import SegmentationOutput
from mdg.registry import LOSSES


class Objective(nn.Module):
    """Sum of the configured terms. The published one is
    ``0.5 Dice + 0.5 CE(smoothing 0.1) + 0.3 CE(aux rgb) + 0.3 CE(aux thermal)``.

    Args:
        config: Its ``loss`` and ``auxiliary_loss`` are read.
        num_classes: Number of classes.
        ignore_index: Label that counts nowhere.
    """

    def __init__(self, config: RunConfig, num_classes: int, ignore_index: int):
        super().__init__()
        context = {"num_classes": num_classes, "ignore_index": ignore_index}
        self.terms = nn.ModuleList(LOSSES.create(options, **context) for options in config.loss)
        self.auxiliary = LOSSES.create(config.auxiliary_loss, **context)

    def forward(self, output: SegmentationOutput, label_BHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective, a float32 scalar, and its terms by name, unweighted and without gradient."""
        size = label_BHW.shape[-2:]
        logits = resize_bilinear(output.logits, size)
        named = [(type(term).__name__, term, logits) for term in self.terms]
        for stream, auxiliary_logits in zip(("aux_rgb", "aux_thermal"), output.auxiliary, strict=False):
            named.append((stream, self.auxiliary, resize_bilinear(auxiliary_logits, size)))
        values = {name: (term.weight, term(term_logits, label_BHW)) for name, term, term_logits in named}
        total = sum(weight * value for weight, value in values.values())
        return total, {name: value.detach() for name, (_, value) in values.items()}
