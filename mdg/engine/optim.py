"""Optimizers, their parameter groups, and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mdg.engine.freezing import named
from mdg.errors import ConfigError
from mdg.models.backbones.layered import Layered
from mdg.options.optim import AdamWOptions, PolyOptions, RangeTestOptions, ScheduleOptions, SGDOptions
from mdg.registry import OPTIMIZERS, SCHEDULES

NO_DECAY_NAMES = ("A_log", "D")


def parameter_groups(model: nn.Module, options: AdamWOptions | SGDOptions) -> list[dict[str, Any]]:
    """Groups of the parameters that learn, by learning rate and weight decay.

    Matrices and kernels decay; 1-D parameters and the scan's ``A_log`` and ``D`` do not, unless the options say so.

    Args:
        model: The network.
        options: Rates and decays; of what has its own, too.

    Raises:
        ConfigError: A group whose ``match`` names nothing, or a ``layer_decay`` where no encoder tells its layers.
    """
    scan, generated = (getattr(options, key, False) for key in ("decay_scan", "decay_generated"))
    rules = {name: group for group in options.groups for name in named(model, group.match, "optimizer.groups")}
    scales = layer_scales(model, options.layer_decay) if options.layer_decay is not None else {}
    groups: dict[tuple[bool, float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        exempt = parameter.ndim <= 1 or name.rpartition(".")[2] in NO_DECAY_NAMES
        if (scan and name.endswith("A_log")) or (generated and name.endswith("generator.bias")):
            exempt = False
        rule = rules.get(name)
        decay = options.weight_decay if rule is None or rule.weight_decay is None else rule.weight_decay
        scale = scales.get(name, 1.0) * (1.0 if rule is None else rule.lr_scale)
        groups.setdefault((exempt, -scale, 0.0 if exempt else decay), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr": -scale * options.lr}
        for (_, scale, decay), parameters in sorted(groups.items(), key=lambda group: group[0])
    ]


def layer_scales(model: nn.Module, decay: float) -> dict[str, float]:
    """Factors of the learning rate by the name of a parameter: ``decay`` to the number of layers between it and the top
    of its encoder (Bao et al., BEiT, 2022); what is in no encoder is not listed.

    Raises:
        ConfigError: No encoder tells its layers.
    """
    scales = {}
    for name, module in model.named_modules():
        if isinstance(module, Layered):
            layers = module.layers()
            for depth, parts in enumerate(reversed(layers)):
                for part in parts:
                    below = module.get_submodule(part)
                    scales.update(
                        {".".join(filter(None, [name, part, own])): decay**depth for own, _ in below.named_parameters()}
                    )
    if not scales:
        raise ConfigError("optimizer.layer_decay: no encoder of this network tells its layers (a method `layers()`)")
    return scales


@OPTIMIZERS.register(AdamWOptions)
class AdamW(torch.optim.AdamW):
    """torch.optim.AdamW, fused, on the parameter groups of a model."""

    def __init__(self, options: AdamWOptions, *, model: nn.Module):
        groups = parameter_groups(model, options)
        super().__init__(groups, lr=options.lr, betas=options.betas, eps=options.eps, fused=True)

    def state_dict(self) -> dict[str, Any]:
        """The state with step counts as plain numbers, which :meth:`load_state_dict` takes: as tensors they are a third
        of all records of a checkpoint, and copied from a GPU one by one."""
        content = super().state_dict()
        states = {key: state for key, state in content["state"].items() if isinstance(state.get("step"), Tensor)}
        if states:
            steps = torch.stack([state["step"] for state in states.values()]).tolist()
            counted = {key: {**states[key], "step": step} for key, step in zip(states, steps, strict=True)}
            content["state"] = {**content["state"], **counted}
        return content


@OPTIMIZERS.register(SGDOptions)
class SGD(torch.optim.SGD):
    """torch.optim.SGD on the parameter groups of a model."""

    def __init__(self, options: SGDOptions, *, model: nn.Module):
        groups = parameter_groups(model, options)
        super().__init__(groups, lr=options.lr, momentum=options.momentum, nesterov=options.nesterov)


class Schedule:
    """Learning rate as a pure function of the optimizer step, so that nothing of it needs saving.

    Steps are counted as if all epochs had as many as those to come. In a run that was continued with larger or smaller
    batches they are not those of the run, and ``offset`` is the difference.

    Args:
        options: Warm-up and decay.
        steps_per_epoch: Optimizer steps in an epoch.
        epochs: Epochs of the whole run.

    Attributes:
        ends: ``[step, end]`` for each end the run was given: from that step on, it was to end there.
        offset: Steps of the run so far less the steps that this part of it has now.
    """

    def __init__(self, options: ScheduleOptions, *, steps_per_epoch: int, epochs: int):
        self.total = epochs * steps_per_epoch
        self.warmup = min(round(options.warmup_epochs * steps_per_epoch), self.total)
        self.warmup_ratio, self.min_ratio = options.warmup_ratio, options.min_ratio
        self.ends = [[0, self.total]]
        self.offset = 0

    @property
    def last_step(self) -> int:
        """Steps of the whole run when it ends."""
        return self.total + self.offset

    def continue_from(self, step: int, ends: list[list[int]], *, jump: bool = False) -> None:
        """Makes a run that was to end elsewhere go on without a jump of the rate: from ``step`` on, what was left of
        the decay is spread over the steps that are now left.

        Args:
            step: Where the run stands, without the offset.
            ends: :attr:`ends` as the run was saved.
            jump: Where the decay is over, take the schedule of all epochs, and with it a jump of the rate.

        Raises:
            ConfigError: The decay is over, so that nothing but the lowest rate is left for further steps.
        """
        self.ends = [list(end) for end in ends]
        if self.total == ends[-1][1]:
            return
        if self.warmup < step < self.total and self._factor(step) <= self.min_ratio < self._factor(self.warmup):
            if jump:
                self.ends = [[0, self.total]]
                return
            raise ConfigError(
                f"the learning rate has reached its end ({self.min_ratio:g} of the base rate) at step {step}, so more "
                "epochs would teach nothing: start a new run with all epochs, or take the jump of the rate to the "
                "schedule of all epochs with --allow-changes"
            )
        self.ends.append([step, self.total])

    def factor(self, step: int) -> float:
        """Multiplier of the base learning rate at ``step`` = 0, 1, ... of the run."""
        return self._factor(step - self.offset)

    def _factor(self, step: int) -> float:
        if step < self.warmup:
            return self.warmup_ratio + (1 - self.warmup_ratio) * step / self.warmup
        return self.min_ratio + (1 - self.min_ratio) * self.decay(self._progress(step))

    def _progress(self, step: int) -> float:
        reached, start, end = 0.0, self.warmup, self.ends[0][1]
        for moved, new_end in self.ends[1:]:
            if step < moved:
                break
            at = max(moved, self.warmup)
            reached, start, end = _between(reached, start, end, at), at, new_end
        return _between(reached, start, end, step)

    def decay(self, progress: float) -> float:
        """Falls from 1 to 0 as ``progress`` goes from 0 to 1."""
        raise NotImplementedError


def _between(reached: float, start: int, end: int, step: int) -> float:
    """Linear from ``reached`` at ``start`` to 1 at ``end``."""
    return reached + (1 - reached) * min(1.0, (step - start) / max(1, end - start))


@SCHEDULES.register(PolyOptions)
class Poly(Schedule):
    """``(1 - progress) ^ power``."""

    def __init__(self, options: PolyOptions, *, steps_per_epoch: int, epochs: int):
        super().__init__(options, steps_per_epoch=steps_per_epoch, epochs=epochs)
        self.power = options.power

    def decay(self, progress: float) -> float:
        return (1 - progress) ** self.power


@SCHEDULES.register(ScheduleOptions)
class Cosine(Schedule):
    """Half a cosine (Loshchilov and Hutter, ICLR 2017)."""

    def decay(self, progress: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * progress))


@SCHEDULES.register(ScheduleOptions)
class Constant(Schedule):
    """No decay after the warm-up."""

    def decay(self, progress: float) -> float:
        return 1.0


@SCHEDULES.register(RangeTestOptions)
class RangeTest(Schedule):
    """Grows from the lowest rate to the base rate, by the same factor every step (Smith, WACV 2017)."""

    def __init__(self, options: RangeTestOptions, *, steps_per_epoch: int, epochs: int):
        super().__init__(ScheduleOptions(warmup_epochs=0), steps_per_epoch=steps_per_epoch, epochs=epochs)
        self.lowest, self.steps = options.lowest_ratio, options.steps

    def factor(self, step: int) -> float:
        """Multiplier of the base learning rate at ``step`` = 0, 1, ..."""
        return self.lowest ** (1 - min(step / (self.steps - 1), 1.0))


def set_rates(optimizer: torch.optim.Optimizer, base: Sequence[float], factor: float) -> float:
    """Gives every group ``factor`` times its own base rate, so that rates per layer survive the schedule; returns that
    of the first group, for the log."""
    for group, rate in zip(optimizer.param_groups, base, strict=True):
        group["lr"] = factor * rate
    return factor * base[0]
