"""Semantic Dynamic Decoder (SDD): the deepest map decides how the finer maps are read.

Legend: B batch, s stage, H_s W_s map of stage s, C_s width, E embedding width, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, field_validator
from torch import Tensor, nn

from mdg.fields import Channels
from mdg.models.decoders.dynamic_linear import ConditionBranch, DynamicLinear
from mdg.models.decoders.frequency_gate import DynamicFrequencyGate
from mdg.models.layers import Linear, MultiScaleHead, init_weights
from mdg.registry import DECODERS, Options

Side = Annotated[int, Field(ge=2, le=16384)]


class SemanticDynamicDecoderOptions(Options):
    """Semantic Dynamic Decoder."""

    embed_dim: Channels = 256
    """Width of the four maps before the head."""
    dynamic_stages: list[int] = [1, 2, 3]
    """Stages whose linear layer is generated from the deepest map; the others use a static one."""
    groups: tuple[Channels, Channels, Channels] = (8, 8, 16)
    """Groups of the generator at stages 1 to 3."""
    frequency_stages: list[int] = [1]
    """Stages multiplied by the dynamic frequency gate; empty turns it off."""
    frequency_filters: Channels = 8
    """Filters in the bank of the gate."""
    frequency_reference: tuple[Side, Side] = (120, 160)
    """Map size [height, width] whose spectrum the bank is stored for; other sizes are interpolated."""
    highpass_cutoff: float = Field(0.25, ge=0, lt=1)
    """Frequencies below this fraction of Nyquist are removed in the gate's branch; 0 keeps all."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Channel dropout before the classifier."""

    @field_validator("dynamic_stages", "frequency_stages")
    @classmethod
    def _check_stages(cls, stages: list[int]) -> list[int]:
        if not set(stages) <= {1, 2, 3} or len(set(stages)) != len(stages):
            raise ValueError("expected different stages out of 1, 2, 3")
        return stages


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
                condition = self.condition[key] = ConditionBranch(widths[-1])
            if stage in options.dynamic_stages:
                self.linear[key] = DynamicLinear(condition.width, width, embed_dim, options.groups[stage - 1])
            else:
                self.linear[key] = Linear(width, embed_dim)
            if stage in options.frequency_stages:
                self.frequency[key] = DynamicFrequencyGate(
                    width,
                    condition.width,
                    embed_dim,
                    filters=options.frequency_filters,
                    cutoff=options.highpass_cutoff,
                    reference=options.frequency_reference,
                )
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
