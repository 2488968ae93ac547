"""One process or many: the same code, with collective operations that do nothing where there is one process."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mdg.engine.process_group import Control, join_group, leave_group, told_reason
from mdg.errors import ConfigError
from mdg.utils.cores import processes_here, threads_of_process
from mdg.utils.driver import unused_gpu
from mdg.utils.launched import end_with_launcher

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

logger = logging.getLogger("mdg")

TIMEOUT = 600.0
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among its peers and the device it computes on."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = torch.device("cpu")
    control: Control = field(default_factory=Control, repr=False, compare=False)

    @property
    def main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over all processes, in place where there are several."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean(self, tensor: Tensor) -> Tensor:
        """Mean over all processes."""
        return self.sum(tensor) / self.size

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; no GPU waits for it."""
        if self.size == 1:
            return flag
        flags = torch.tensor(int(flag))
        dist.all_reduce(flags, group=self.control.group)
        return bool(flags.item())

    def barrier(self) -> None:
        """Waits for all processes, not for their GPUs."""
        if self.size > 1:
            dist.barrier(group=self.control.group)

    def mesh(self) -> DeviceMesh:
        """All processes in one row, for what splits tensors over them."""
        from torch.distributed.device_mesh import init_device_mesh

        return init_device_mesh(self.device.type, (self.size,))

    def gather(self, value: T) -> list[T]:
        """The plain value or CPU tensors of every process, in their order, for all of them."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.control.group)
        return found

    def vote(self, flag: bool) -> bool:
        """Whether any process had raised its flag at the previous call; with one process the flag itself.

        All processes call this equally often, once a step, and get the same answer at the same call. The votes travel
        while the step is computed, so that neither a process nor a GPU waits for them.
        """
        return flag if self.size == 1 else self.control.vote(flag)

    def until_stopped(self, items: Iterable[T], asked: Callable[[], bool]) -> Iterator[T]:
        """The items, up to the moment at which any process is asked to stop.

        Processes may have different numbers of items and each breaks off at its own; none waits for another. Afterwards
        ``any(asked())`` says on all of them alike whether the work is whole.
        """
        for item in items:
            if asked():
                self.control.call_stop()
                return
            if self.control.stop_called():
                return
            yield item


@contextmanager
def distributed(device: str = "auto", threads: int | None = None, timeout: float = TIMEOUT) -> Iterator[World]:
    """Joins the process group that a launcher describes in the environment, or runs alone without one.

    Args:
        device: "auto", "cpu", "cuda" or "mps".
        threads: CPU threads per process; None divides the machine's cores among its processes.
        timeout: Seconds after which a process that has not started, or does not answer, counts as lost.

    Raises:
        ConfigError: CUDA asked for and absent, or fewer GPUs than processes.
        MachineError: A process that did not start or was lost.
        UserError: Another process failed first; the error is that of the other, with its number.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    local_rank, local_size = int(os.environ.get("LOCAL_RANK", 0)), processes_here()
    picked = pick_device(device, local_rank, local_size)
    set_threads(threads, local_size)
    if picked.type == "cuda":
        torch.cuda.set_device(picked)
    end_with_launcher()
    control = join_group(rank, size, picked, timeout) if size > 1 else Control()
    try:
        yield World(rank, size, local_rank, picked, control)
        control.finish()
    except Exception as error:
        told = told_reason(error, control, rank) if size > 1 else error
        if told is error:
            raise
        raise told from error
    finally:
        if size > 1:
            leave_group()


def data_parallel(model: nn.Module, world: World) -> nn.Module:
    """The network with gradients averaged over all processes; the network itself where there is one process."""
    if world.size == 1:
        return model
    devices = [world.device] if world.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)


def summing_gradients(network: nn.Module, now: bool) -> AbstractContextManager:
    """Around a backward pass: whether gradients are exchanged in it, or in a later one."""
    if hasattr(network, "set_requires_gradient_sync"):  # its weights are split (FSDP2)
        network.set_requires_gradient_sync(now)  # type: ignore[operator]
    return network.no_sync() if isinstance(network, DistributedDataParallel) and not now else nullcontext()


def compare_processes(world: World, facts: Mapping[str, str]) -> None:
    """Makes sure that all processes run the same thing; every process calls it, before anything else.

    Args:
        world: The processes.
        facts: Short texts or digests by what they are of, such as {"configuration": "3f2a...", "torch": "2.12.1"}.

    Raises:
        ConfigError: On every process, where a fact differs; it names the fact and who has which value.
    """
    if world.size == 1:
        return
    gathered = world.gather(dict(facts))
    differing = [text for name in _names(gathered) if (text := _difference(name, gathered))]
    if differing:
        raise ConfigError(
            f"the processes of this run do not agree: {'; '.join(differing)}. Start all of them with the same "
            "arguments, configuration, data, checkout of the code and version of PyTorch"
        )


def broadcast_buffers(world: World, module: nn.Module) -> None:
    """Gives the buffers of the main process (BatchNorm statistics and counters) to all, in place.

    One collective operation per type of number, whatever the number of buffers.
    """
    if world.size == 1:
        return
    kinds = defaultdict(list)
    for buffer in module.buffers():
        kinds[buffer.dtype, buffer.device.type].append(buffer)
    with torch.no_grad():
        for (_, device), buffers in kinds.items():
            flat = torch.cat([buffer.reshape(-1) for buffer in buffers])
            dist.broadcast(flat, src=0, group=world.control.group if device == "cpu" else None)
            parts = flat.split([buffer.numel() for buffer in buffers])
            for buffer, part in zip(buffers, parts, strict=True):
                buffer.copy_(part.view(buffer.shape))


def _names(gathered: list[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for facts in gathered for name in facts))


def _difference(name: str, gathered: list[dict[str, str]]) -> str:
    """ "code (process 0: a1b2; processes 1, 2: c3d4)", or nothing where all have the same."""
    holders = defaultdict(list)
    for rank, facts in enumerate(gathered):
        holders[facts.get(name, "absent")].append(str(rank))
    if len(holders) == 1:
        return ""
    said = [f"{'process' if len(who) == 1 else 'processes'} {', '.join(who)}: {fact}" for fact, who in holders.items()]
    return f"{name} ({'; '.join(said)})"


def set_threads(threads: int | None, local_size: int = 1) -> None:
    """CPU threads of this process; None takes what OMP_NUM_THREADS says, else its share of the cores it may use."""
    torch.set_num_threads(threads_of_process(local_size) if threads is None else threads)


def pick_device(device: str, local_rank: int = 0, local_size: int = 1) -> torch.device:
    """The device of a process among the ``local_size`` of its machine; raises ConfigError where there are too few."""
    if device == "cpu":
        return torch.device("cpu")
    if device == "mps":
        return _gpu_of_a_mac(local_size)
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    reason = unused_gpu() if available == 0 else None
    if device == "auto" and available == 0:
        if reason is not None and local_rank == 0:
            logger.warning("%s. This run goes on on the CPU", reason)
        return torch.device("cpu")
    if available < local_size:
        raise ConfigError(
            f"device: {device} with {local_size} processes on this machine needs as many CUDA devices, "
            f"got {available}; start fewer processes or set --opts device=cpu{'. ' + reason if reason else ''}"
        )
    return torch.device("cuda", local_rank)


def _gpu_of_a_mac(local_size: int) -> torch.device:
    if not torch.backends.mps.is_available():
        raise ConfigError(
            "device: mps: this PyTorch finds no GPU of a Mac (macOS 14 or newer on Apple silicon); use auto or cpu"
        )
    if local_size > 1:
        raise ConfigError(f"device: mps serves one process, got {local_size}; start one, or set --opts device=cpu")
    return torch.device("mps")


def widest_float(device: torch.device) -> torch.dtype:
    """float64 for what is added up over many steps; float32 on the GPU of a Mac, which has nothing wider."""
    return torch.float32 if device.type == "mps" else torch.float64
