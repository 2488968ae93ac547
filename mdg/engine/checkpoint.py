"""Checkpoints: tensors and plain values only, whole or not at all, sealed against damage, and never with NaN.

What one holds are typed models: a file of another program, or a field of the wrong kind, is one line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast

import torch
from pydantic import AfterValidator, BeforeValidator, Field, InstanceOf, model_validator
from torch import Tensor, nn

from mdg.config import RunConfig, load_config, parse_config
from mdg.config.yaml_tree import apply_override, parse_yaml
from mdg.engine.runtime import compile_network
from mdg.engine.sharding import split_like
from mdg.engine.slim_file import read_slim
from mdg.engine.trust.state import TrustState
from mdg.errors import ConfigError, NonFiniteError, WeightsError, first_few
from mdg.fields import user_path
from mdg.models import build_model
from mdg.models.weight_files import first_non_finite, is_safetensors, misfits, read_tensors, verify_weights
from mdg.utils.files import replacing
from mdg.utils.run_directory import newest_run
from mdg.utils.sealed import seal
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
    ancestors: list[FrameSetState] = []
    unlabelled: list[FrameSetState] = []
    deployed: Text = ""  # part of what last.pt holds that is scored, where a method of training holds more
    data: dict[Text, Text] = {}
    last: bool = False  # of weights that were passed on: from last.pt
    rounded: Text = ""  # likewise: to what precision
    trust: TrustState | None = None  # what tools/calibrate.py measured

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
    schedule: list[Annotated[list[Count], Field(min_length=2, max_length=2)]] = []
    steps_per_epoch: Annotated[int, Field(ge=1, lt=1 << 63)] | None = None


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
    new = ("changes", "data", "ancestors", *(("identity", "schedule", "steps_per_epoch") if training else ()))
    return {**{name: model.model_fields[name].get_default(call_default_factory=True) for name in new}, **state}


FORMAT = 1
WEIGHTS = ("model", "ema", "optimizer")


def save_checkpoint(file: Path, content: dict[str, Any], keep_as: Path | None = None) -> None:
    """Replaces a checkpoint, at once: readers see the old file or the new one.

    Args:
        file: Where to write.
        content: What :mod:`mdg.engine.checkpoint` lists, without ``format``.
        keep_as: Where what the file held before is kept.

    Raises:
        NonFiniteError: A tensor of the model, its moving average or the optimizer holds NaN or infinity. Like every
            error it comes before anything is changed.
        MachineError: No room.
    """
    named = {name: tensor for part in WEIGHTS for name, tensor in _tensors(content.get(part), part)}
    if (name := first_non_finite(named)) is not None:
        raise NonFiniteError(f"{file}: not written, as {name} holds NaN or infinity; the file of before stays")
    with replacing(file, keep_as) as stream, _with_crc():
        _save({"format": FORMAT, **content}, stream)
        seal(stream)


def load_checkpoint(file: str | Path, training: bool = False) -> dict[str, Any]:
    """Reads a checkpoint of this project, after verifying that no byte of it has changed; code in it is never run.

    Args:
        file: A ``best.pt`` or ``last.pt``, or a file of :mod:`mdg.engine.slim_file`.
        training: Whether everything is needed that a resume needs.

    Returns:
        The fields of :class:`~mdg.engine.checkpoint.CheckpointState`, or of ``TrainingState``.

    Raises:
        WeightsError: Missing, damaged, written by another program or version, or with a field of the wrong kind.
    """
    file = Path(file)
    content = read_slim(file) if is_safetensors(file) else read_tensors(file, archive=True)
    if not isinstance(content, dict) or "format" not in content or "model" not in content:
        raise WeightsError(
            f"{file}: not a checkpoint of mdg (it has no `format` and `model`). Encoder weights go under "
            "model.pretrained instead."
        )
    if type(content["format"]) is int and content["format"] != FORMAT:
        raise WeightsError(
            f"{file}: checkpoint format {content['format']}, this version reads {FORMAT}; use the mdg "
            f"version that wrote it ({str(content.get('mdg_version', 'unknown'))[:40]})"
        )
    return checked_content(content, file, training)


def open_checkpoint(
    checkpoint: str | Path | None, config: str | Path | None, opts: Sequence[str]
) -> tuple[Path, dict[str, Any], RunConfig]:
    """What a tool is to work with: the file, its content, and the configuration under which the network is built.

    Args:
        checkpoint: A ``best.pt`` or ``last.pt``; None takes the best (else the last) of the newest run in ``exp_dir``.
        config: A YAML; None takes the configuration inside the checkpoint.
        opts: Overrides of the configuration.

    Raises:
        UserError: No such file, or one that cannot be used.
    """
    file = find_checkpoint(checkpoint, opts)
    state = load_checkpoint(file)
    return file, state, load_config(config, opts) if config is not None else config_inside(state, file, opts)


def find_checkpoint(checkpoint: str | Path | None, opts: Sequence[str]) -> Path:
    """The file named, or the best (else the last) checkpoint of the newest run under ``exp_dir``."""
    if checkpoint is not None:
        return Path(checkpoint).expanduser()
    exp_dir = next((opt.partition("=")[2] for opt in reversed(opts) if opt.startswith("exp_dir=")), "exp")
    run = newest_run(user_path(Path(exp_dir)))
    return run.best if run.best.is_file() else run.last


def config_inside(state: dict[str, Any], checkpoint: Path, opts: Sequence[str]) -> RunConfig:
    """The configuration a checkpoint was trained with, under ``opts``.

    Raises:
        ConfigError: It names modules to import, or an override does not fit.
    """
    source = f"configuration inside {checkpoint}"
    tree = parse_yaml(state["config"], source)
    tree.origins.setdefault((), source)  # of what nobody wrote
    if modules := tree.values.get("custom_imports"):
        named = ", ".join(map(str, modules)) if isinstance(modules, list) else str(modules)
        raise ConfigError(
            f"{checkpoint}: its configuration imports {named[:300]}. A checkpoint must not decide what code runs: if "
            "you trust it, name its configuration with --config (config.yaml of its run)"
        )
    for override in opts:
        tree = apply_override(tree, override)
    return parse_config(tree)


def load_model(
    state: dict[str, Any], config: RunConfig, classes: Sequence[str], checkpoint: Path, device: torch.device
) -> nn.Module:
    """The network of a checkpoint on ``device``, with the moving average of its weights where it holds one.

    Raises:
        WeightsError: Another number of classes, or tensors that do not fit.
    """
    if len(state["classes"]) != len(classes):
        raise WeightsError(
            f"{checkpoint}: trained for {len(state['classes'])} classes ({', '.join(state['classes'])}), the data set "
            f"has {len(classes)} ({', '.join(classes)})"
        )
    model = build_model(config.model, len(classes), load_pretrained=False)
    load_weights(model, scored_weights(state), checkpoint)
    model.to(device)
    if config.train.compile:
        compile_network(model)
    return model


def scored_weights(state: dict[str, Any]) -> dict[str, Tensor]:
    """The weights that are scored: ``last.pt`` holds the moving average, where there is one, beside the raw ones."""
    weights = state["model"]
    if state.get("ema") is not None:
        weights = {name.removeprefix("module."): value for name, value in state["ema"].items() if name != "n_averaged"}
    part = f"{state.get('deployed', '')}."
    if part == "." or "optimizer" not in state:  # best.pt holds nothing else
        return weights
    return {name.removeprefix(part): value for name, value in weights.items() if name.startswith(part)}


def verify_checkpoint(file: str | Path) -> None:
    """Reads a file without unpickling it, and notices every change of a byte (in a file from before checkpoints were
    sealed: every change of a tensor).

    Raises:
        WeightsError: Missing or damaged.
    """
    verify_weights(Path(file), archive=True)


def load_weights(model: nn.Module, tensors: dict[str, Any], source: str | Path) -> None:
    """Loads a state dict whose names, shapes and kinds of number must be exactly those of the model.

    Raises:
        WeightsError: Names the tensors that are missing, left over, or of another shape or kind.
        NonFiniteError: A tensor holds NaN or infinity.
    """
    own = model.state_dict()
    problems = [f"{name} is missing" for name in own if name not in tensors]
    problems += [f"{name} is not in the model" for name in tensors if name not in own]
    problems += misfits(own, tensors)
    if problems:
        raise WeightsError(
            f"{source}: {len(problems)} tensors do not fit the model of the configuration: "
            f"{first_few(problems, 4, '; ')}. Evaluate a checkpoint with the configuration it was trained "
            "with (leave --config out)."
        )
    if (name := first_non_finite(tensors)) is not None:
        raise NonFiniteError(
            f"{source}: {name} holds NaN or infinity, so nothing it predicts has a meaning: the training had diverged. "
            "Take an earlier checkpoint (best.pt, previous.pt)"
        )
    model.load_state_dict({name: split_like(value, own[name]) for name, value in tensors.items()})


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """All tensors in a tree of dicts and lists, by dotted path."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, (Mapping, list, tuple)):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _tensors(item, f"{name}.{key}")


def _save(content: dict[str, Any], stream: BinaryIO) -> None:
    """``torch.save``, which hides what the storage says behind an error of its own."""
    watched = _Watched(stream)
    try:
        torch.save(content, cast(BinaryIO, watched))
    except RuntimeError:
        if watched.error is not None:
            raise watched.error from None
        raise


class _Watched:
    """A stream that remembers the error of a write."""

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.stream.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.stream.flush()


@contextmanager
def _with_crc() -> Iterator[None]:
    """The seal rests on the CRCs of tensors, which a program may have switched off."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)
