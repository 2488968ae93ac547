"""What a checkpoint holds, as typed models: a file of another program, or a field of the wrong kind, is one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BeforeValidator, Field, InstanceOf, model_validator
from torch import Tensor

from mdg.errors import WeightsError
from mdg.utils.typed import Content, Count, Text, require


def _dense(value: Tensor) -> Tensor:
    """A view of few numbers can claim to be of any size."""
    if value.layout != torch.strided or value.is_quantized:
        raise ValueError("Input should be a dense tensor")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError("Input should be a tensor with a number in the file for each of its elements")
    return value


Dense = Annotated[InstanceOf[Tensor], AfterValidator(_dense)]
Tensors = dict[InstanceOf[str], Dense]
Channel = Annotated[int, Field(ge=0, le=255)]


class ProgressState(Content):
    """Where the run stood."""

    epoch: Count
    batch: Count = 0
    step: Count = 0
    best_score: float | None = None
    best_epoch: Count | None = None


class FrameSetState(Content):
    """Frames that trained or chose the weights, see :mod:`mdg.engine.evaluation.provenance`."""

    dataset: Text
    role: Text
    split: Text
    sha256: Text
    identities: list[Text]


class OptimizerState(Content):
    """``state_dict()`` of an optimizer."""

    state: dict[Any, dict[Any, Any]]
    param_groups: list[dict[InstanceOf[str], Any]] = Field(min_length=1)


class MeterState(Content):
    """Losses of one process since the last line that was logged."""

    sums: Tensors
    count: Count


class CheckpointState(Content):
    """What every checkpoint holds, ``best.pt`` too; older ones know less about their frames."""

    format: int
    model: Tensors
    config: Text
    progress: ProgressState
    mdg_version: Text
    classes: list[Text] = Field(min_length=1)
    palette: list[Annotated[list[Channel], Field(min_length=3, max_length=3)]]
    ema: Tensors | None = None
    trained_on: FrameSetState | None = None
    selected_on: FrameSetState | None = None
    world_size: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    changes: list[Text] = []
    data: dict[Text, Text] = {}

    @model_validator(mode="after")
    def _a_colour_for_every_class(self) -> CheckpointState:
        if len(self.palette) != len(self.classes):
            raise ValueError(f"palette has {len(self.palette)} colours, classes has {len(self.classes)} names")
        return self


class TrainingState(CheckpointState):
    """What ``last.pt`` holds beyond that."""

    world_size: Annotated[int, Field(ge=1, lt=1 << 31)]
    ema: Tensors | None
    optimizer: OptimizerState
    scaler: dict[InstanceOf[str], Any]
    # One per process; of old there was that of the first process alone.
    meter: Annotated[list[MeterState], BeforeValidator(lambda value: [value] if isinstance(value, dict) else value)]
    identity: dict[Text, Any] = {}
    schedule: list[Any] = []


def checked_content(content: Mapping[str, Any], file: Path, training: bool) -> dict[str, Any]:
    """The content as it is, with the defaults of fields that older checkpoints lack.

    Args:
        content: What lay in the file.
        file: For messages.
        training: Whether everything is needed that a resume needs.

    Raises:
        WeightsError: A field is missing or of the wrong kind; the message names file, field, what was got and what was
            expected.
    """
    model = TrainingState if training else CheckpointState
    advice = "to resume from: take checkpoints/last.pt of a run" if training else "of mdg, take another one"
    require(model, content, file, f"it is no whole checkpoint {advice}", WeightsError)
    state = dict(content)
    if training and isinstance(state["meter"], dict):
        state["meter"] = [state["meter"]]
    new = ("changes", "data", "identity", "schedule") if training else ("changes", "data")
    return {**{name: model.model_fields[name].get_default(call_default_factory=True) for name in new}, **state}
