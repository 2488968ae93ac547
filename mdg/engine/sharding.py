"""Weights, gradients and moments split over the processes (FSDP2 of PyTorch), for networks that do not fit one device.

Each process keeps a slice of every tensor. The whole ones of a block are put together while it computes and dropped
behind it; gradients are averaged as slices. What is written to a checkpoint is whole, so that it is the file that any
number of processes continues, and that every tool reads.

References: Rajbhandari et al., ZeRO, SC 2020; Zhao et al., PyTorch FSDP, VLDB 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mdg.models.recompute import Recomputable

if TYPE_CHECKING:  # importing either costs half a second, which runs without them do not pay
    from torch.distributed.device_mesh import DeviceMesh


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Splits the parameters of a network over the processes of ``mesh``, in place.

    A block of an encoder and a stage of the interaction are put together one at a time; the rest, all at once.
    """
    from torch.distributed.fsdp import fully_shard

    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # FSDP2 takes no other
    for module in list(model.modules()):
        if isinstance(module, Recomputable):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_sharded(value: object) -> bool:
    """Whether a network, or a tensor, is split."""
    if isinstance(value, nn.Module):
        return any(is_sharded(parameter) for parameter in value.parameters())
    return isinstance(value, Tensor) and hasattr(value, "full_tensor")


def whole(value: Any, keep: bool = True) -> Any:
    """A tree of dicts and lists with every split tensor put together on the CPU; all processes call it.

    Args:
        value: A state of a network or optimizer.
        keep: Whether this process wants them; one that does not gets None in their places, and holds one at a time.
    """
    if is_sharded(value):
        full = value.full_tensor().detach()
        return full.cpu() if keep else None
    if isinstance(value, Mapping):
        return {key: whole(item, keep) for key, item in value.items()}
    return [whole(item, keep) for item in value] if isinstance(value, list) else value


def split_like(value: Tensor, own: Tensor) -> Tensor:
    """This process's slice of a whole tensor, as ``own`` is split; the tensor itself where ``own`` is whole."""
    if not is_sharded(own):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(own, DTensor)
    value = value.to(own.device, own.dtype)
    return distribute_tensor(value, own.device_mesh, own.placements, src_data_rank=None)  # every process has all of it


def split_state(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of an optimizer as a checkpoint holds it, its moments split as the parameters are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        **state,
        "state": {
            place: {
                key: split_like(value, parameters[place]) if _is_moment(value, parameters[place]) else value
                for key, value in kept.items()
            }
            for place, kept in state["state"].items()
        },
    }


def _is_moment(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape and value.dim() > 0


def whole_norm(norm: Tensor) -> Tensor:
    """A norm over split gradients as a plain number; all processes call it."""
    return norm.full_tensor() if is_sharded(norm) else norm  # type: ignore[attr-defined]
