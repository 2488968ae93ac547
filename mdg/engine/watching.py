"""What the divergence interaction does in a forward pass, watched stage by stage, and in numbers.

Legend: B batch, H W map, C width, P = H*W positions, S directions of the scan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdg.errors import ConfigError
from mdg.models.interaction.channel_mamba import ChannelScan
from mdg.models.interaction.exchange import InteractionOutput
from mdg.models.interaction.stage import ModalityDivergenceInteraction

STREAMS = ("rgb", "thermal")


class Stage(NamedTuple):
    """One interaction on one batch.

    Attributes:
        number: 1 to 4.
        before, after: Maps ``[B, H, W, C]`` of RGB and of thermal before and after it.
        divergence_BHW, mask_BHW: Where the streams diverge, and the multiplier of the write-back.
        gates: Of the local attention, ``[B, H, W]`` by stream; None without one.
        steps: Mean step size of every direction of the scan; empty without one.
    """

    number: int
    before: tuple[Tensor, Tensor]
    after: tuple[Tensor, Tensor]
    divergence_BHW: Tensor
    mask_BHW: Tensor
    gates: tuple[Tensor, Tensor] | None = None
    steps: tuple[float, ...] = ()


class _Watcher:
    """The hooks of one interaction; a pass ends with that of the interaction itself, which makes a :class:`Stage`."""

    def __init__(self, number: int, module: ModalityDivergenceInteraction, stages: list[Stage]):
        self.number, self.stages = number, stages
        self.gates: tuple[Tensor, Tensor] | None = None
        self.steps: tuple[float, ...] = ()
        self.hooks = [module.register_forward_hook(self._whole)]
        if module.attention is not None:
            self.hooks.append(module.attention.gate.register_forward_hook(self._gates))
        if module.mamba is not None:
            self.hooks.append(module.mamba.scans.register_forward_hook(self._scan))

    def _gates(self, module: nn.Module, inputs: tuple, out: Tensor) -> None:
        rgb_gate_BHW, thermal_gate_BHW = torch.sigmoid(out.detach().float()).unbind(-1)
        self.gates = rgb_gate_BHW, thermal_gate_BHW

    @torch.no_grad()
    def _scan(self, module: ChannelScan, inputs: tuple, out: Tensor) -> None:
        self.steps = tuple(step_NLG.mean().item() for step_NLG in module.step_sizes(inputs[0]))

    def _whole(self, module: nn.Module, inputs: tuple, out: InteractionOutput) -> None:
        where, after = out.divergence, (out.rgb_BHWC, out.thermal_BHWC)
        assert where is not None
        self.stages.append(
            Stage(self.number, inputs[:2], after, where.divergence_BHW, where.mask(), self.gates, self.steps)
        )


@contextmanager
def watched(model: nn.Module) -> Iterator[list[Stage]]:
    """The interactions of every forward pass inside, in their order.

    Raises:
        ConfigError: A network without a divergence interaction.
    """
    stages: list[Stage] = []
    watchers = [_Watcher(number, module, stages) for number, module in interactions(model).items()]
    try:
        yield stages
    finally:
        for watcher in watchers:
            for hook in watcher.hooks:
                hook.remove()


def interactions(model: nn.Module) -> dict[int, ModalityDivergenceInteraction]:
    """The divergence interactions by the number of their stage; raises ConfigError where there is none."""
    found = {
        number: module
        for number, module in enumerate(getattr(model, "interaction", None) or (), start=1)
        if isinstance(module, ModalityDivergenceInteraction)
    }
    if not found:
        raise ConfigError(
            "this network has no divergence interaction (model.interaction), so there is nothing to explain"
        )
    return found


def measure(stage: Stage, label_BHW: Tensor | None = None) -> dict[str, Any]:
    """The numbers of one stage.

    Per stream, at selected positions (a multiplier above one half) and at others: the norm of the features, the norm
    after the interaction over the norm before it, the norm of the change over it, and the cosine between both. Of the
    mask: the mean multiplier, which of a top-k mask is the share of positions that it selects, at all positions and at
    those that a label calls an object (any class but the first), an edge between classes, or ignored; of the divergence
    the mean and its spread over positions; of gates and step sizes the mean.

    Args:
        stage: What was watched.
        label_BHW: Class ids at the size of the image; 255 is ignored.
    """
    selected_BHW = stage.mask_BHW > 0.5
    numbers: dict[str, Any] = {
        "stage": stage.number,
        "divergence": {"mean": stage.divergence_BHW.mean().item(), "std": stage.divergence_BHW.std().item()},
        "mask": {"all": stage.mask_BHW.mean().item()},
    }
    for name, before, after in zip(STREAMS, stage.before, stage.after, strict=True):
        numbers[name] = {}
        for where, place in (("selected", selected_BHW), ("other", ~selected_BHW)):
            if place.any():
                numbers[name][where] = _change(before[place].float(), after[place].float())
    if stage.gates is not None:
        numbers["gate"] = {name: gate.mean().item() for name, gate in zip(STREAMS, stage.gates, strict=True)}
    if stage.steps:
        numbers["step size"] = dict(zip(("forwards", "backwards"), stage.steps, strict=False))
    if label_BHW is not None:
        kinds = _kinds(label_BHW, selected_BHW.shape[-2:])
        for name, place in kinds.items():
            if place.any():
                numbers["mask"][name] = stage.mask_BHW[place].mean().item()
    return numbers


def _change(before_NC: Tensor, after_NC: Tensor) -> dict[str, float]:
    norm_N, change_N = before_NC.norm(dim=-1), (after_NC - before_NC).norm(dim=-1)
    return {
        "norm": norm_N.mean().item(),
        "norm after / before": (after_NC.norm(dim=-1) / norm_N.clamp(min=1e-12)).mean().item(),
        "change / norm": (change_N / norm_N.clamp(min=1e-12)).mean().item(),
        "cosine": F.cosine_similarity(before_NC, after_NC, dim=-1).mean().item(),
    }


def _kinds(label_BHW: Tensor, size: Sequence[int]) -> dict[str, Tensor]:
    """Cells of a map that hold a pixel of an object, of an edge, or only ignored ones; bool ``[B, h, w]``."""
    ignored = label_BHW == 255
    objects = (label_BHW > 0) & ~ignored
    edges = torch.zeros_like(ignored)
    edges[:, 1:] |= (label_BHW[:, 1:] != label_BHW[:, :-1]) & ~(ignored[:, 1:] | ignored[:, :-1])
    edges[:, :, 1:] |= (label_BHW[:, :, 1:] != label_BHW[:, :, :-1]) & ~(ignored[:, :, 1:] | ignored[:, :, :-1])

    def any_in_cell(pixels_BHW: Tensor) -> Tensor:
        return F.adaptive_max_pool2d(pixels_BHW[:, None].float(), tuple(size))[:, 0] > 0

    return {"objects": any_in_cell(objects), "edges": any_in_cell(edges), "ignored": ~any_in_cell(~ignored)}
