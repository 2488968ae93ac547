"""The interface of a method of training, and the one of labels alone.

A method decides what learns (the *learner*: the network of the configuration, or one that holds it and more), what it
learns from a batch, and which network is scored, kept as ``best.pt`` and deployed.

Legend: B batch, H W image.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mdg.config import RunConfig
from mdg.data import Batch
from mdg.errors import ConfigError
from mdg.losses import Objective
from mdg.losses.pseudo_labels import ramp
from mdg.models.segmentor import SegmentationOutput
from mdg.options.methods import SupervisedOptions
from mdg.registry import METHODS

Terms = dict[str, Tensor]


class Images(NamedTuple):
    """A batch on its device; ``labelled`` of its first images have a label."""

    rgb_B3HW: Tensor
    thermal_B1HW: Tensor
    label_BHW: Tensor
    labelled: int

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> Images:
        """A batch of a loader, on its way to the device."""
        rgb, thermal, label = (x.to(device, non_blocking=True) for x in batch[:3])
        return cls(rgb, thermal, label.long(), len(batch.names) - batch.unlabelled)

    @property
    def seen_UHW(self) -> Tensor:
        """Of the images without a label: what some camera saw, bool."""
        return self.label_BHW[self.labelled :] != IGNORED


IGNORED = 255


class Method:
    """A method of training.

    Args:
        config: The run.
        num_classes: Of the data.

    Attributes:
        uses_unlabelled: Whether every batch holds images without a label as well.
        deployed_part: Name of the part of the learner that is scored and deployed; empty: the learner itself.
    """

    uses_unlabelled: ClassVar[bool] = True
    deployed_part: ClassVar[str] = ""
    autocast: AbstractContextManager = nullcontext()  # around passes; the trainer sets it

    def __init__(self, config: RunConfig, num_classes: int):
        self.config, self.num_classes = config, num_classes
        if config.train.parallel != "ddp" and self.uses_unlabelled:
            raise ConfigError(f"train.parallel: {config.train.parallel}: {type(self).__name__} runs with ddp alone")

    def learner(self, network: nn.Module, *, load_pretrained: bool = True) -> nn.Module:
        """What learns, made of the network of the configuration; ``load_pretrained`` as of
        :func:`mdg.models.build_model`, for what it is made of beside it."""
        return network

    def deployed(self, learner: nn.Module) -> nn.Module:
        """The network that is scored and kept."""
        return learner.get_submodule(self.deployed_part)

    def views(self, learner: nn.Module) -> dict[str, nn.Module]:
        """Further networks that are scored beside it, by what they are called."""
        return {}

    def loss(self, network: nn.Module, images: Images, objective: Objective, step: float) -> tuple[Tensor, Terms]:
        """What a pass learns, and its terms without gradient, the same names in every pass.

        Args:
            network: The learner, or what averages its gradients over processes. It is called once.
            images: The batch.
            objective: What labels teach.
            step: Epochs since the start of the run, with their fraction.
        """
        raise NotImplementedError

    def after_step(self, learner: nn.Module, step: int) -> None:
        """Behind every optimizer step, of which ``step`` came before it."""


@METHODS.register(SupervisedOptions)
class Supervised(Method):
    """Labels alone."""

    uses_unlabelled = False

    def __init__(self, options: SupervisedOptions, *, config: RunConfig, num_classes: int):
        super().__init__(config, num_classes)

    def loss(self, network: nn.Module, images: Images, objective: Objective, step: float) -> tuple[Tensor, Terms]:
        """The objective."""
        with self.autocast:
            output = network(images.rgb_B3HW, images.thermal_B1HW)
        return objective(output, images.label_BHW)


def labelled_part(output: SegmentationOutput, count: int) -> SegmentationOutput:
    """The logits of the first ``count`` images."""
    return SegmentationOutput(output.logits[:count], tuple(head[:count] for head in output.auxiliary))


def unwrapped(network: nn.Module) -> nn.Module:
    """The network inside of what averages its gradients."""
    return network.module if isinstance(network, DistributedDataParallel) else network


def ramped(weight: float, epochs: float, step: float) -> float:
    """A weight that grows over the first epochs."""
    return weight * ramp(step, epochs) if weight else 0.0


def foreground_share(target_UHW: Tensor, seen_UHW: Tensor, background: int = 0) -> Tensor:
    """Share of the pixels that got another class than the background, without gradient: pseudo-labels that collapse
    onto it show here."""
    found = ((target_UHW != background) & seen_UHW).sum()
    return (found / seen_UHW.sum().clamp(min=1)).detach().to(torch.float32)
