"""What a step of many processes exchanges and holds: sizes that are measured, and what follows from them by arithmetic.

Legend: N processes, one per GPU; P numbers that learn, 4 bytes each, as are their gradients and two moments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mdg.benchmark.workload import Settings, Workload
from mdg.models.recompute import Recomputable
from mdg.utils.markdown import table

NUMBER = 4  # bytes: weights, gradients and moments are float32 whatever the precision of the step
GIB = 2**30
MB = 10**6  # as networks are sold
Parallel = Literal["ddp", "fsdp2"]


@dataclass(frozen=True)
class Sizes:
    """What is measured on one device, in bytes.

    Attributes:
        weights: Of all that learns; gradients take as much, the two moments of AdamW twice as much.
        largest_unit: The largest block that is put together at a time where weights are split.
        rest: What is put together for a whole step: all outside of such blocks.
        buffers: Statistics of BatchNorm.
        kept: What the forward pass of one image keeps for the backward pass, in float32.
    """

    weights: int
    largest_unit: int
    rest: int
    buffers: int
    kept: int


def measure_sizes(settings: Settings) -> Sizes:
    """Sizes of a network, and what one training pass over one image keeps (on the CPU)."""
    work = Workload(settings, torch.device("cpu"))
    units = [_bytes(module.parameters()) for module in work.model.modules() if isinstance(module, Recomputable)]
    weights = _bytes(parameter for parameter in work.model.parameters() if parameter.requires_grad)
    return Sizes(
        weights=weights,
        largest_unit=max(units, default=0),
        rest=weights - sum(units),
        buffers=_bytes(work.model.buffers()),
        kept=_kept(work) // settings.batch,
    )


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _kept(work: Workload) -> int:
    """Bytes of all tensors that autograd holds at the end of a forward pass, the weights aside, each memory once."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in work.model.parameters()}
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        memory = tensor.untyped_storage()
        if memory.data_ptr() not in weights:
            held[memory.data_ptr()] = memory.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = work.forward()
    del output  # kept until here, so that no memory was used twice
    return sum(held.values())


def received_per_step(sizes: Sizes, processes: int, parallel: Parallel = "ddp", passes: int = 1) -> float:
    """Bytes that a process receives in one optimizer step; it sends as many.

    ``ddp`` averages gradients in a ring, 2 (N - 1) / N of their size (Patarasuk and Yuan, 2009), and hears the buffers
    of the first process before every forward pass. ``fsdp2`` gathers the weights of what is not this process's part
    before every forward pass, those of blocks again before the backward pass, and hands out gradients once a step:
    (N - 1) / N of their sizes each.

    Args:
        sizes: Of the network.
        processes: N.
        parallel: ``train.parallel``.
        passes: ``train.accumulate``.
    """
    if processes == 1:
        return 0.0
    share = (processes - 1) / processes
    if parallel == "ddp":
        return 2 * share * sizes.weights + passes * sizes.buffers
    return share * (passes * (2 * sizes.weights - sizes.rest) + sizes.weights)


def held(sizes: Sizes, processes: int, images: int, parallel: Parallel = "ddp", *, half: bool, average: bool) -> float:
    """Bytes on a device at the end of a forward pass, when a step holds most.

    Weights, gradients, two moments (and the moving average); what the pass keeps for the backward pass.

    Args:
        sizes: Of the network.
        processes: N.
        images: Per process and pass.
        parallel: ``train.parallel``.
        half: bf16 or fp16: what is kept takes half. (The parts that stay float32 are small.)
        average: Whether ``train.ema_decay`` is set.
    """
    states: float = (4 + average) * sizes.weights
    if parallel == "fsdp2" and processes > 1:
        states = states / processes + 2 * sizes.largest_unit + sizes.rest  # the next block is fetched beside this one
    return states + images * sizes.kept * (0.5 if half else 1.0)


def estimate_table(
    sizes: Sizes,
    processes: Sequence[int],
    *,
    images: int,
    half: bool,
    average: bool,
    passes: int = 1,
    link_gb: float = 12.5,
    step_ms: float | None = None,
) -> str:
    """A Markdown table: per way of sharing and number of GPUs, what is held and exchanged, and for how long.

    Args:
        sizes: Measured.
        processes: Numbers of GPUs.
        images: Per GPU and pass.
        half, average, passes: See :func:`held` and :func:`received_per_step`.
        link_gb: GB/s that a GPU gets from the network, in each direction; 12.5 is 100 Gbit/s.
        step_ms: Milliseconds that one GPU takes for a step; None leaves out what part of it the exchange may last.
    """
    header = ["sharing", "GPUs", "images a step", "GiB on a GPU", "MB exchanged", f"ms at {link_gb:g} GB/s"]
    header += ["share of the step"] if step_ms else []
    rows = []
    for parallel in ("ddp", "fsdp2"):
        for count in processes:
            received = received_per_step(sizes, count, parallel, passes)
            memory = held(sizes, count, images, parallel, half=half, average=average)
            exchange_ms = received / (link_gb * 1e9) * 1e3
            row = [f"`{parallel}`", str(count), str(count * images * passes)]
            row += [f"{memory / GIB:.2f}", f"{received / MB:.1f}", f"{exchange_ms:.1f}"]
            rows.append(row + ([f"{100 * exchange_ms / step_ms:.0f} %"] if step_ms else []))
    return table(header, rows)
