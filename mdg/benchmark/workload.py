"""What is measured: a configuration, random images, and one step of inference or training on them.

Legend: B batch, H W image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from mdg.config import RunConfig, dump_yaml, load_config, parse_config
from mdg.config.yaml_tree import parse_yaml
from mdg.data import build_dataset
from mdg.engine.distributed import distributed
from mdg.engine.inference import Inference
from mdg.engine.runtime import apply_runtime, compile_network, make_autocast, place_network
from mdg.errors import ConfigError, nearest
from mdg.losses import Objective
from mdg.models import build_model
from mdg.ops.dispatch import OPERATORS
from mdg.registry import DATASETS, OPTIMIZERS

MIN_SIDE = 32  # px; a side of one cell of the deepest map
MODES = ("infer", "train")
# Repetitions where none are asked for, by mode: (warm-up, measured). A GPU is as fast as it gets only when warm.
REPETITIONS = {"cpu": {"infer": (2, 10), "train": (1, 5)}, "cuda": {"infer": (10, 100), "train": (5, 30)}}


@dataclass(frozen=True)
class Settings:
    """One measurement. Precision, compilation and backends are those of the configuration.

    Raises:
        ConfigError: Images smaller than 32x32, a batch or repetitions that cannot be, or an unknown mode.
    """

    config: RunConfig
    height: int = 480
    """Pixels."""
    width: int = 640
    """Pixels."""
    batch: int = 1
    """Images per forward pass."""
    mode: Literal["infer", "train"] = "infer"
    """One forward pass, or one optimizer step."""
    steps: int | None = None
    """Measured repetitions; None takes those of :data:`REPETITIONS`."""
    warmup: int | None = None
    """Repetitions before them."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"--mode {self.mode}: expected one of: {', '.join(MODES)}")
        if min(self.height, self.width) < MIN_SIDE:
            raise ConfigError(
                f"got images of {self.height}x{self.width}, expected at least {MIN_SIDE} pixels a side; change "
                "--height and --width"
            )
        for name, least in (("batch", 1), ("steps", 1), ("warmup", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"--{name} {value}: expected at least {least}")

    def repetitions(self, device: str) -> tuple[int, int]:
        """Warm-up and measured steps on a type of device."""
        warmup, steps = REPETITIONS[device][self.mode]
        return warmup if self.warmup is None else self.warmup, steps if self.steps is None else self.steps

    def plain(self) -> dict[str, Any]:
        """Plain values, for another process; :meth:`from_plain` is the inverse."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**plain, "config": dump_yaml(self.config)}

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> Settings:
        """The settings that :meth:`plain` wrote."""
        return cls(**{**values, "config": parse_config(parse_yaml(values["config"], "settings"))})


def load_settings(file: str | Path, opts: Sequence[str] = (), **sizes: Any) -> Settings:
    """Settings from a YAML with overrides; the other arguments are those of :class:`Settings`."""
    return Settings(load_config(file, opts), **sizes)


def flag_opts(
    backends: Sequence[str] = (),
    precision: str | None = None,
    compile: bool = False,
    checkpointing: bool = False,
    cuda_graphs: bool = False,
) -> list[str]:
    """The flags of the command as overrides of the configuration.

    Args:
        backends: ``operator=backend``.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        compile, checkpointing, cuda_graphs: Turn ``train.compile``, ``train.activation_checkpointing`` and
            ``eval.cuda_graphs`` on.

    Raises:
        ConfigError: A backend that is not ``operator=backend``, or an operator that does not exist.
    """
    opts = [_backend_opt(item) for item in backends]
    opts += [f"train.precision={precision}"] if precision else []
    opts += ["train.compile=true"] if compile else []
    opts += ["eval.cuda_graphs=true"] if cuda_graphs else []
    return opts + (["train.activation_checkpointing=true"] if checkpointing else [])


def _backend_opt(item: str) -> str:
    operator, separator, backend = item.partition("=")
    if not separator or not backend:
        raise ConfigError(f"--backend {item}: expected operator=backend, such as channel_scan=torch")
    if operator not in OPERATORS:
        known = ", ".join(OPERATORS)
        raise ConfigError(
            f"--backend {item}: unknown operator '{operator}'; expected one of: {known}.{nearest(operator, OPERATORS)}"
        )
    return f"ops.{operator}={backend}"


Step = Callable[[], Any]
SEED = 0


class Images(NamedTuple):
    """Random uint8 images and int64 labels, on the device."""

    rgb_B3HW: Tensor
    thermal_B1HW: Tensor
    label_BHW: Tensor


class Workload:
    """A network as the trainer builds it, without pretrained weights, and images for it.

    Args:
        settings: What to measure.
        device: Where.
    """

    def __init__(self, settings: Settings, device: torch.device):
        config = settings.config
        self.settings, self.device = settings, device
        self.num_classes, self.ignore_index = classes_of(config.data)
        torch.manual_seed(config.seed)
        model = build_model(config.model, self.num_classes, load_pretrained=False)
        place_network(model, config, device)
        self.model = model.train(settings.mode == "train")
        self.images = make_images(settings, self.num_classes, device)
        self.autocast = make_autocast(config, device)

    def forward(self) -> Any:
        """One forward pass: to the logits, in training to those of the auxiliary heads too."""
        with torch.inference_mode(not self.model.training), self.autocast:
            return self.model(self.images.rgb_B3HW, self.images.thermal_B1HW)

    def step(self) -> Step:
        """What one repetition of the measurement does, compiled or recorded where the configuration says so."""
        if self.settings.config.train.compile:
            compile_network(self.model)
        if self.model.training:
            return training_step(self)
        config = self.settings.config
        inference = Inference(self.model, config.eval, self.autocast, self.device)
        pair = self.images.rgb_B3HW, self.images.thermal_B1HW

        def step() -> Any:
            with torch.inference_mode():
                return inference.forward(*pair)

        return step


def training_step(work: Workload) -> Step:
    """One optimizer step as ``mdg.engine.trainer`` makes it: forward, loss, backward, clipping, update."""
    config, model = work.settings.config, work.model
    objective = Objective(
        config.loss,
        config.auxiliary_loss,
        num_classes=work.num_classes,
        ignore_index=work.ignore_index,
        automatic_weights=lambda: [1.0] * work.num_classes,  # any numbers take the same time
    ).to(work.device)
    optimizer: torch.optim.Optimizer = OPTIMIZERS.create(config.optimizer, model=model)
    scaler = torch.amp.GradScaler(work.device.type, enabled=config.train.precision == "fp16")

    def step() -> None:
        loss, _ = objective(work.forward(), work.images.label_BHW)
        scaler.scale(loss).backward()
        if config.train.clip_grad_norm is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), config.train.clip_grad_norm)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    return step


def make_images(settings: Settings, num_classes: int, device: torch.device) -> Images:
    """Images of the same noise every time."""
    generator = torch.Generator().manual_seed(SEED)
    B, H, W = settings.batch, settings.height, settings.width
    rgb = torch.randint(0, 256, (B, 3, H, W), dtype=torch.uint8, generator=generator)
    thermal = torch.randint(0, 256, (B, 1, H, W), dtype=torch.uint8, generator=generator)
    label = torch.randint(0, num_classes, (B, H, W), generator=generator)
    return Images(rgb.to(device), thermal.to(device), label.to(device))


def classes_of(options: Any) -> tuple[int, int]:
    """Number of classes and ignored id of a data set; its files are opened only where neither options nor class know
    the classes."""
    dataset = DATASETS.get(options.type)
    classes = getattr(options, "classes", None) or getattr(dataset, "classes", None)
    if classes is None:
        classes = build_dataset(options, "train").classes
    return len(classes), dataset.ignore_index


def prepare(settings: dict[str, Any]) -> Step:
    """A step that is ready to run, in a process of its own; ``settings`` as :meth:`Settings.plain` gives them."""
    parsed = Settings.from_plain(settings)
    with distributed(parsed.config.device, parsed.config.threads) as world:
        apply_runtime(parsed.config)
        return Workload(parsed, world.device).step()
