"""How many images fit into the memory at hand: measured at one and two images, predicted, and measured again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mdg.benchmark.memory import BYTES_PER_MB, KIB_PER_MB, peak_memory
from mdg.benchmark.workload import Settings
from mdg.config import RunConfig
from mdg.data import build_dataset
from mdg.engine.distributed import distributed
from mdg.errors import ConfigError, UserError

SMALLER = 0.8  # of a batch that did not fit, the next one to try
MOST = 4096


class Fit(NamedTuple):
    """What was found: the largest batch that fits, its measured peak, and the memory that it may take."""

    images: int
    peak_mb: float
    allowed_mb: float
    size: tuple[int, int]


def find_batch_size(run: RunConfig, *, share: float = 0.9) -> Fit:
    """The largest number of images of a process with which a training step fits.

    Args:
        run: Precision, recomputation and the size of the crops are read from it.
        share: Of the free memory that may be taken; the rest is for other processes and for fragmentation.

    Raises:
        ConfigError: A share that is none. UserError: Not even one image fits, or the measurement failed.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"--share {share:g}: expected more than 0 and at most 1")
    height, width = crop_size(run)
    with distributed(run.device, run.threads) as world:
        allowed_mb = share * free_mb(world.device)

    def measure(batch: int) -> float:
        settings = Settings(run, height=height, width=width, batch=batch, mode="train")
        return float(peak_memory("mdg.benchmark.workload:prepare", settings.plain())["peak_memory_mb"])

    images, peak_mb = largest(measure, allowed_mb)
    return Fit(images, peak_mb, allowed_mb, (height, width))


def largest(measure: Callable[[int], float], allowed_mb: float) -> tuple[int, float]:
    """The largest batch whose measured peak is allowed, and that peak.

    Args:
        measure: Peak in MB of a batch; raises UserError where it does not fit at all.
        allowed_mb: What it may take.

    Raises:
        UserError: One image does not fit.
    """
    one_mb = measure(1)
    if one_mb > allowed_mb:
        raise UserError(
            f"a step with one image takes {one_mb:.0f} MB, and {allowed_mb:.0f} MB may be taken: train with smaller "
            "crops, a smaller network, train.activation_checkpointing=true, or train.precision=bf16 on a GPU"
        )
    two_mb = _peak(measure, 2)
    if two_mb > allowed_mb:
        return 1, one_mb
    per_image = max(two_mb - one_mb, 1.0)
    images = min(MOST, int(1 + (allowed_mb - one_mb) / per_image))
    while images > 2:
        peak_mb = _peak(measure, images)
        if peak_mb <= allowed_mb:
            return images, peak_mb
        images = max(2, min(images - 1, int(SMALLER * images)))
    return 2, two_mb


def _peak(measure: Callable[[int], float], batch: int) -> float:
    try:
        return measure(batch)
    except UserError:  # it ran out of memory
        return float("inf")


def crop_size(config: RunConfig) -> tuple[int, int]:
    """[height, width] of the images that train: of the last transform that says so, else of the first frame."""
    sizes = [size for size in (getattr(transform, "size", None) for transform in config.pipeline.train) if size]
    if sizes:
        return tuple(sizes[-1])
    return build_dataset(config.data, "train")[0].label_HW.shape


def free_mb(device: torch.device) -> float:
    """Memory that this process could take now: of the GPU, else of the machine or of the container it runs in."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / BYTES_PER_MB
    bounds = [value for value in (_available(), _container()) if value is not None]
    return min(bounds) if bounds else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / BYTES_PER_MB


def _available(file: Path = Path("/proc/meminfo")) -> float | None:
    if not file.is_file():
        return None
    lines = (line.split() for line in file.read_text().splitlines())
    return next((int(line[1]) / KIB_PER_MB for line in lines if line[0] == "MemAvailable:"), None)


def _container(folder: Path = Path("/sys/fs/cgroup")) -> float | None:
    limit, used = folder / "memory.max", folder / "memory.current"
    if not (limit.is_file() and used.is_file()) or limit.read_text().strip() == "max":
        return None
    return (int(limit.read_text()) - int(used.read_text())) / BYTES_PER_MB


def advise(fit: Fit, config: RunConfig) -> dict[str, Any]:
    """Keys with which an optimizer step sees as many images as configured, in as few passes as fit.

    Args:
        fit: What fits.
        config: Its ``train.batch_size`` and ``train.accumulate`` give the images of a step.
    """
    images = config.train.batch_size * config.train.accumulate
    passes = next(passes for passes in range(1, images + 1) if images % passes == 0 and images // passes <= fit.images)
    return {"train.batch_size": images // passes, "train.accumulate": passes}
