"""Options of optimizers and schedules."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from mdg.registry import OPTIMIZERS, SCHEDULES, Options

Beta = Annotated[float, Field(ge=0, lt=1)]


class GroupOptions(Options):
    """Parameters that learn otherwise than the rest."""

    match: str
    """A part by name (`decoder`, `rgb_backbone.block1`) or pattern (`*.norm1`); where several fit, the last counts."""
    lr_scale: float = Field(1.0, gt=0, le=1e4)
    """Their learning rate as a multiple of `lr`."""
    weight_decay: float | None = Field(None, ge=0)
    """Their weight decay, where they have one at all; null takes that of the optimizer."""


class OptimizerOptions(Options):
    """What every optimizer knows."""

    lr: float = Field(1e-4, gt=0)
    """Base learning rate, for the batch as configured; it is not scaled by the number of processes."""
    groups: list[GroupOptions] = []
    """Parts with a learning rate or a weight decay of their own."""
    layer_decay: float | None = Field(None, gt=0, le=1)
    """The learning rate of an encoder falls by this factor from each block to the one below it; null leaves it the
    same."""


class AdamWOptions(OptimizerOptions):
    """AdamW."""

    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Decay rates of the two moments."""
    eps: float = Field(1e-8, gt=0, le=1e-2)
    """Added to the root of the second moment; published: 1e-7."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay; 1-D parameters, A_log and D have none."""
    decay_scan: bool = False
    """Decay the scan's A_log too (published)."""
    decay_generated: bool = False
    """Decay the static matrix of a dynamic linear layer too, which is the bias of its generator."""


class SGDOptions(OptimizerOptions):
    """Stochastic gradient descent."""

    lr: float = Field(1e-2, gt=0)
    """Base learning rate."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum."""
    nesterov: bool = False
    """Nesterov's form; needs momentum > 0."""
    weight_decay: float = Field(5e-4, ge=0)
    """Weight decay; 1-D parameters, A_log and D have none."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SGDOptions:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum > 0")
        return self


class ScheduleOptions(Options):
    """Linear warm-up, then decay, both per optimizer step."""

    warmup_epochs: float = Field(10, ge=0, le=1_000_000)
    """Length of the warm-up in epochs."""
    warmup_ratio: float = Field(0.1, gt=0, le=1)
    """Share of the base rate at the first step."""
    min_ratio: float = Field(0.0, ge=0, le=1)
    """Share of the base rate at the end."""


class PolyOptions(ScheduleOptions):
    """Polynomial decay."""

    power: float = Field(0.9, gt=0)
    """Exponent of the decay."""


class RangeTestOptions(Options):
    """A rate that only grows, to find out which one to train with: see `scripts/find_lr.py`."""

    lowest_ratio: float = Field(1e-6, gt=0, lt=1)
    """Share of the base rate at the first step."""
    steps: int = Field(100, ge=2, le=1_000_000)
    """Optimizer steps until the base rate is reached."""


OPTIMIZERS.declare(AdamW=AdamWOptions, SGD=SGDOptions)
SCHEDULES.declare(Poly=PolyOptions, Cosine=ScheduleOptions, Constant=ScheduleOptions, RangeTest=RangeTestOptions)
