"""Semantic Dynamic Decoder (SDD): the deepest map decides how the finer maps are read.

Legend: B batch, s stage, H_s W_s map of stage s, C_s width, E embedding width, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mdg.models.decoders.dynamic_linear import ConditionBranch, DynamicLinear
from mdg.models.decoders.frequency_gate import DynamicFrequencyGate
from mdg.models.layers import Linear, MultiScaleHead, init_weights
from mdg.options.models import SemanticDynamicDecoderOptions
from mdg.registry import DECODERS


@DECODERS.register(SemanticDynamicDecoderOptions)
class SemanticDynamicDecoder(nn.Module):
    """SDD, the published decoder (section 4 of docs/model.md).

    Args:
        options: Which stages are dynamic, and how.
        widths: ``C_1 .. C_4``.
        num_classes: ``K``.
    """

    def __init__(self, options: SemanticDynamicDecoderOptions, *, widths: Sequence[int], num_classes: int):
        super().__init__()
        embed_dim = options.embed_dim
        self.condition, self.linear, self.frequency = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for stage, width in enumerate(widths, start=1):
            key = str(stage)
            if stage in options.dynamic_stages or stage in options.frequency_stages:
                condition = self.condition[key] = ConditionBranch(
                    widths[-1], norm=options.condition_norm[stage - 1], star_relu=options.star_relu
                )
            if stage in options.dynamic_stages:
                self.linear[key] = DynamicLinear(
                    condition.width, width, embed_dim, options.groups[stage - 1], options.generator_rate
                )
            else:
                self.linear[key] = Linear(width, embed_dim)
            if stage in options.frequency_stages:
                self.frequency[key] = DynamicFrequencyGate(options, width=width, condition_width=condition.width)
        self.head = MultiScaleHead(len(widths), embed_dim, num_classes, options.dropout)
        self.apply(init_weights)

    def forward(self, maps_BHWC: Sequence[Tensor]) -> Tensor:
        """The fused maps ``[B, H_s, W_s, C_s]``, finest first -> logits ``[B, K, H_1, W_1]``."""
        return self.head(
            [self._embed(str(stage), x_BHWC, maps_BHWC[-1]) for stage, x_BHWC in enumerate(maps_BHWC, start=1)]
        )

    def _embed(self, stage: str, x_BHWC: Tensor, deepest_BhwD: Tensor) -> Tensor:
        linear = self.linear[stage]
        if stage not in self.condition:
            return linear(x_BHWC)
        condition_BhwR = self.condition[stage](deepest_BhwD)
        y_BHWE = linear(x_BHWC, condition_BhwR) if isinstance(linear, DynamicLinear) else linear(x_BHWC)
        if stage in self.frequency:
            y_BHWE = y_BHWE * (1 + self.frequency[stage](x_BHWC, condition_BhwR))
        return y_BHWE
