"""A whole measurement, as ``tools/benchmark.py`` makes it."""

from __future__ import annotations

from typing import Any

import torch

from mdg.benchmark.macs import count_macs, watched_backends
from mdg.benchmark.memory import peak_memory
from mdg.benchmark.modules import measure_modules, parameters_of
from mdg.benchmark.race import race
from mdg.benchmark.timing import repeat_ms, summary
from mdg.benchmark.workload import Settings, Workload
from mdg.engine.distributed import distributed
from mdg.engine.runtime import apply_runtime
from mdg.errors import UserError
from mdg.utils.environment import describe_environment

MODULE_PASSES = 3


def benchmark(settings: Settings, ops: bool = False) -> dict[str, Any]:
    """Measures a network.

    Args:
        settings: What to measure.
        ops: Race the backends of the operators too.

    Returns:
        Plain values. ``params_m`` (all parameters, 10^6), ``gmacs`` (10^9 multiply-accumulates of the forward pass of
        one image; in training with the auxiliary heads, without the backward pass), ``latency_ms`` (``median``,
        ``p95``, ``min`` of a step), ``images_per_s`` (at the median), ``peak_memory_mb`` and ``baseline_memory_mb``
        (2**20 bytes, see :func:`mdg.benchmark.memory.peak_memory`), ``modules`` (see
        :func:`mdg.benchmark.modules.measure_modules`), ``backends`` by operator, ``machine``, the settings, and with
        ``ops`` what :func:`mdg.benchmark.race.race` yields.

    Raises:
        UserError: A backend that cannot run, too little memory, or a network that cannot be built.
    """
    with distributed(settings.config.device, settings.config.threads) as world:
        apply_runtime(settings.config)
        try:
            work = Workload(settings, world.device)
            # At the size of the batch, and before the network may be compiled.
            calls = count_macs(work.model, work.images.rgb_B3HW, work.images.thermal_B1HW).calls if ops else []
            found = _measure(work)
            raced = {"ops": list(race(calls, _dtype(settings), world.device))} if ops else {}
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"{settings.mode} with batch {settings.batch} at {settings.height}x{settings.width} does not fit into "
                f"the memory of the GPU ({str(error).splitlines()[0]}); use a smaller --batch or smaller images"
            ) from None
    # Last, when the kernels that are compiled at first use lie in their caches.
    return {**found, **peak_memory("mdg.benchmark.workload:prepare", settings.plain()), **raced}


def _measure(work: Workload) -> dict[str, Any]:
    settings, device = work.settings, work.device
    count = count_macs(work.model, work.images.rgb_B3HW[:1], work.images.thermal_B1HW[:1])
    with watched_backends() as backends:
        work.forward()
    modules = measure_modules(work.model, count, work.forward, device, MODULE_PASSES)
    warmup, steps = settings.repetitions(device.type)
    latency = summary(repeat_ms(work.step(), device, warmup, steps))
    return {
        **_settings(settings, device.type),
        "warmup": warmup,
        "steps": steps,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "params_m": parameters_of(work.model) / 1e6,
        "gmacs": count.within() / 1e9,
        "latency_ms": latency,
        "images_per_s": 1000 * settings.batch / latency["median"],
        "modules": modules,
        "backends": dict(backends),
        "machine": describe_environment(),
    }


def _settings(settings: Settings, device: str) -> dict[str, Any]:
    config = settings.config
    return {
        "config": config.name,
        **{name: getattr(settings, name) for name in ("height", "width", "batch", "mode")},
        "precision": config.train.precision,
        "compile": config.train.compile,
        "cuda_graphs": config.eval.cuda_graphs and settings.mode == "infer" and device == "cuda",
        "checkpointing": config.train.activation_checkpointing and settings.mode == "train",
        "model": config.model.model_dump(mode="json"),
    }


def _dtype(settings: Settings) -> torch.dtype:
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[settings.config.train.precision]
