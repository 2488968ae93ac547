"""What a process is set to before a network runs in it: backends, precision, compilation, memory, determinism."""

from __future__ import annotations

import os
import shutil

import torch
from torch import nn

from mdg.config import RunConfig
from mdg.engine.distributed import World
from mdg.errors import ConfigError
from mdg.models.recompute import recompute_activations
from mdg.ops import measured, set_backend
from mdg.ops.measured import Measurement
from mdg.utils.allocator import tune_allocator
from mdg.utils.run_directory import RunDirectory

# Inductor would choose a memory layout for convolutions and pass it on to what feeds them. The maps of this network are
# channels-last already, as ``BHWC`` tensors that a convolution sees through a view; taking those for ``BCHW`` ones, it
# turned them round, and with PyTorch 2.12 a training step on a CPU then wrote outside of its buffers.
COMPILE_OPTIONS = {"layout_optimization": False}


def apply_runtime(config: RunConfig) -> None:
    """Backends of the operators, memory and determinism, for this process."""
    for operator in type(config.ops).model_fields:
        backend = getattr(config.ops, operator)
        # `auto` leaves the choice to the environment variable, then to the operator itself.
        set_backend(operator, None if backend == "auto" else backend)
    if config.device == "cpu" or not torch.cuda.is_available():
        tune_allocator()
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if config.train.compile and config.device != "cuda" and not torch.cuda.is_available():
        _require_compiler()
    if torch.are_deterministic_algorithms_enabled() != config.deterministic:  # setting it imports the compiler: 2 s
        torch.use_deterministic_algorithms(config.deterministic, warn_only=True)


def follow_measurements(run: RunDirectory, world: World) -> list[Measurement]:
    """Chooses backends by the times that the run began with, also where the machine was measured anew since: another
    backend rounds another way. All processes call it.

    Returns:
        What the run is to remember: of the machines of all processes and of those it ran on before.
    """
    saved = world.gather(measured.read(run.backends) if world.main else [])[0]
    return [*world.gather(measured.take(saved)), *saved]


def _require_compiler() -> None:
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise ConfigError(
            "train.compile: torch.compile on a CPU needs a C++ compiler (c++, g++ or clang++) and none is on the PATH; "
            "install one or set --opts train.compile=false"
        )


def make_autocast(config: RunConfig, device: torch.device) -> torch.autocast:
    """Autocast in the configured precision; off for fp32."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.train.precision]
    return torch.autocast(device.type, dtype=dtype if dtype != torch.float32 else None, enabled=dtype != torch.float32)


def place_network(model: nn.Module, config: RunConfig, device: torch.device) -> None:
    """Moves a network that is to be trained to its device, in the layout and with the recomputation of ``train:``."""
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    model.to(device, memory_format=layout)  # type: ignore[call-overload]  # documented; the types lack it
    if config.train.activation_checkpointing:
        recompute_activations(model)


def compile_network(model: nn.Module) -> None:
    """Compiles a network in place, at its first forward pass; names and weights stay as they are."""
    model.compile(options=COMPILE_OPTIONS)
