"""Mean teacher: the moving average of the network says what images without a label show, and is what is deployed
(Tarvainen and Valpola, NeurIPS 2017).

Legend: U images without a label, K classes, H W image.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from mdg.config import RunConfig
from mdg.engine.methods.base import Images, Method, Terms, foreground_share, labelled_part, ramped, unwrapped
from mdg.losses import Objective
from mdg.models.segmentor import SegmentationOutput
from mdg.options.methods import MeanTeacherOptions
from mdg.registry import METHODS


class StudentAndTeacher(nn.Module):
    """The network that learns and its average, which is in evaluation mode throughout."""

    def __init__(self, student: nn.Module):
        super().__init__()
        self.student, self.teacher = student, copy.deepcopy(student)
        self.teacher.requires_grad_(False)

    def train(self, mode: bool = True) -> StudentAndTeacher:
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, rgb_B3HW: Tensor, thermal_B1HW: Tensor) -> SegmentationOutput:
        return self.student(rgb_B3HW, thermal_B1HW)


@METHODS.register(MeanTeacherOptions)
class MeanTeacher(Method):
    """See the module. Both see the same images; dropout, stochastic depth and the average make them differ."""

    deployed_part = "teacher"

    def __init__(self, options: MeanTeacherOptions, *, config: RunConfig, num_classes: int):
        super().__init__(config, num_classes)
        self.decay, self.weight, self.ramp_epochs = options.decay, options.weight, options.ramp_epochs

    def learner(self, network: nn.Module, *, load_pretrained: bool = True) -> nn.Module:
        """The network with its average."""
        return StudentAndTeacher(network)

    def views(self, learner: nn.Module) -> dict[str, nn.Module]:
        """The network itself."""
        assert isinstance(learner, StudentAndTeacher)
        return {"student": learner.student}

    def loss(self, network: nn.Module, images: Images, objective: Objective, step: float) -> tuple[Tensor, Terms]:
        """The objective where there is a label; elsewhere the mean squared difference of the probabilities."""
        count, learner = images.labelled, unwrapped(network)
        assert isinstance(learner, StudentAndTeacher)
        with self.autocast:
            output = network(images.rgb_B3HW, images.thermal_B1HW)
        with torch.no_grad(), self.autocast:
            taught = learner.teacher(images.rgb_B3HW[count:], images.thermal_B1HW[count:]).logits
        total, terms = objective(labelled_part(output, count), images.label_BHW[:count])
        taught_UKHW, seen_UHW = taught.float().softmax(1), images.seen_UHW
        difference_UHW = (output.logits[count:].float().softmax(1) - taught_UKHW).square().mean(1)
        value = (difference_UHW * seen_UHW).sum() / seen_UHW.sum().clamp(min=1)
        total = total + ramped(self.weight, self.ramp_epochs, step) * value
        terms["consistency"] = value.detach()
        terms["foreground_teacher"] = foreground_share(taught_UKHW.argmax(1), seen_UHW)
        return total, terms

    @torch.no_grad()
    def after_step(self, learner: nn.Module, step: int) -> None:
        """The average follows; statistics of BatchNorm are those of the network."""
        assert isinstance(learner, StudentAndTeacher)
        share = 1 - min(self.decay, 1 - 1 / (step + 1))
        own: list[Tensor] = list(learner.student.parameters())
        average: list[Tensor] = list(learner.teacher.parameters())
        torch._foreach_lerp_(average, own, share)
        for kept, now in zip(learner.teacher.buffers(), learner.student.buffers(), strict=True):
            kept.copy_(now)
