"""What to measure: a configuration, the size of the images, inference or training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mdg.config import RunConfig, dump_yaml, load_config, parse_config
from mdg.config.yaml_tree import parse_yaml
from mdg.errors import ConfigError, nearest
from mdg.ops.dispatch import OPERATORS

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
        return {**asdict(replace(self, config=None)), "config": dump_yaml(self.config)}

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
        raise ConfigError(f"--backend {item}: expected operator=backend, such as selective_scan=torch")
    if operator not in OPERATORS:
        known = ", ".join(OPERATORS)
        raise ConfigError(
            f"--backend {item}: unknown operator '{operator}'; expected one of: {known}.{nearest(operator, OPERATORS)}"
        )
    return f"ops.{operator}={backend}"
