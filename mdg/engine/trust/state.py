"""What a checkpoint knows of its own reliability, once ``tools/calibrate.py`` has measured it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from mdg.utils.typed import Content, Count, Text

Positive = Annotated[float, Field(gt=0)]


class FamiliarGroup(Content):
    """Numbers that describe a pair in one respect (its pixels, or the network's features), over the training frames.

    A pair's distance is the root of the mean square of its numbers, each less ``mean`` and over ``deviation``;
    ``limit`` is the distance that 99 of 100 frames of the split stay below.
    """

    name: Text
    mean: list[float] = Field(min_length=1)
    deviation: list[Positive] = Field(min_length=1)
    limit: Positive

    @model_validator(mode="after")
    def _as_many(self) -> FamiliarGroup:
        if len(self.mean) != len(self.deviation):
            raise ValueError(f"mean has {len(self.mean)} numbers, deviation has {len(self.deviation)}")
        return self


class TrustState(Content):
    """What was measured on a split that did not train the weights.

    Attributes:
        temperature: What logits are divided by.
        split, sha256, images: The frames it was fitted on.
        mode: How they were predicted, in the words of the protocol.
        before, after: Expected calibration error on them, per cent.
        familiar: By what a pair is told from the training frames; ``trained`` of those were looked at.
    """

    temperature: Positive
    split: Text
    sha256: Text
    images: Count
    mode: Text
    before: float
    after: float
    trained: Count = 0
    familiar: list[FamiliarGroup] = []
