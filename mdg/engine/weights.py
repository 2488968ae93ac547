"""The network that learns, its moving average, and what the processes of a run do with them together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdg.engine.checkpoint import load_weights
from mdg.engine.distributed import World, broadcast_buffers, data_parallel
from mdg.engine.methods import Method
from mdg.engine.runtime import place_network
from mdg.engine.sharding import shard, split_like, whole
from mdg.engine.state import moving_average
from mdg.models import build_model


class Weights:
    """Everything of a run that a score depends on.

    Args:
        model: What learns, on its device.
        method: Which network of it is scored. Its configuration says whether there is a moving average, and how
            processes share the network.
        world: The processes.

    Attributes:
        model: What learns.
        average: The moving average of its weights, or None.
        sharded: Whether each process holds a part of them only.
    """

    def __init__(self, model: nn.Module, method: Method, world: World):
        self.model, self.method, self.world = model, method, world
        train = method.config.train
        self.average = moving_average(model, train.ema_decay) if train.ema_decay is not None else None
        self.sharded = train.parallel == "fsdp2" and world.size > 1
        if self.sharded:
            mesh = world.mesh()
            for network in self._networks():
                shard(network, mesh)

    def _networks(self) -> list[nn.Module]:
        return [self.model] if self.average is None else [self.model, self.average.module]

    def connect(self) -> nn.Module:
        """What a training step calls: the network, whose gradients are averaged over all processes."""
        return self.model if self.sharded else data_parallel(self.model, self.world)

    def follow(self) -> None:
        """Lets the moving average follow a step."""
        if self.average is not None:
            self.average.update_parameters(self.model)

    def agree_on_buffers(self) -> None:
        """BatchNorm statistics differ between processes after a step; those of the main process are the ones saved."""
        for network in self._networks():
            broadcast_buffers(self.world, network)

    def scored(self) -> nn.Module:
        """The network that is evaluated, the moving average where there is one; see :meth:`alone`."""
        return self.method.deployed(self.alone(self._networks()[-1]))

    def views(self) -> dict[str, nn.Module]:
        """Further networks that are scored beside it, by name."""
        return self.method.views(self._networks()[-1])

    def alone(self, network: nn.Module) -> nn.Module:
        """A network that a process can run by itself; all processes call this.

        Where weights are split it is a whole copy: processes that score different numbers of images, or look for a
        number that is not finite, do not compute in step.
        """
        if not self.sharded:
            return network
        config = self.method.config
        with torch.random.fork_rng(devices=[]):
            plain = build_model(config.model, self.method.num_classes, load_pretrained=False)
            copy = self.method.learner(plain, load_pretrained=False)
        copy.load_state_dict(whole(network.state_dict()))
        place_network(copy, config, self.world.device)
        return copy

    def scored_state(self) -> dict[str, Any]:
        """The weights of :meth:`scored`, for the main process; all processes call it."""
        return self._whole(self.method.deployed(self._networks()[-1]).state_dict())

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps to continue, for the main process; all processes call it."""
        average = None if self.average is None else self._whole(self.average.state_dict())
        return {"model": self._whole(self.model.state_dict()), "ema": average}

    def _whole(self, state: dict[str, Any]) -> dict[str, Any]:
        return whole(state, keep=self.world.main) if self.sharded else state

    def load(self, state: dict[str, Any], file: Path) -> None:
        """Continues from what :meth:`state` gave; an average that was not kept begins with the weights.

        Raises:
            WeightsError: They do not fit. NonFiniteError: One holds NaN or infinity.
        """
        load_weights(self.model, state["model"], file)
        if self.average is None:
            return
        if state["ema"] is not None:
            own = self.average.state_dict()
            self.average.load_state_dict({name: split_like(value, own[name]) for name, value in state["ema"].items()})
        else:
            self.average.module.load_state_dict(self.model.state_dict())
