"""What all forms of tri-training have in common: three views learn from labels and from one another, and one of them,
the student, learns maps of the two others as well.

    L = L_obj(student) + sum over the others v of w_v L_v(v)         where there is a label
      + λ_cps sum over views v and u != v of CE(v, arg max u)        where there is none
      + what the student is to learn of maps                         both

After TriKD (arXiv 2309.12557).

Legend: U images without a label, K classes, H W image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mdg.config import RunConfig
from mdg.engine.methods.base import Images, Method, Terms, labelled_part, ramped, unwrapped
from mdg.losses import Objective
from mdg.losses.pseudo_labels import cross_pseudo_supervision
from mdg.models.segmentor import SegmentationOutput
from mdg.options.methods import ViewsOptions


class ThreeViewMethod(Method):
    """See the module. The learner gives a tuple whose first three are the outputs of the views, the student's first.

    Args:
        options: What all forms have in common.
        weights: Of the labels for the two other views.
        config: The run.
        num_classes: Of the data.

    Attributes:
        view_names: What the views are called in logs, the student first.
    """

    deployed_part = "student"
    view_names: ClassVar[tuple[str, str, str]]

    def __init__(self, options: ViewsOptions, weights: tuple[float, float], *, config: RunConfig, num_classes: int):
        super().__init__(config, num_classes)
        self.label_weights = weights
        self.cps_weight, self.ramp_epochs = options.cps_weight, options.ramp_epochs
        self.threshold, self.agreement, self.class_balance = options.threshold, options.agreement, options.class_balance

    def objectives(self, learner: nn.Module, objective: Objective) -> tuple[nn.Module, nn.Module]:
        """What labels teach the two other views."""
        return objective, objective

    def distilled(self, learner: nn.Module, output: Any) -> Iterator[tuple[str, float, Tensor]]:
        """What the student is to learn of maps: name, weight and value of each term, the same ones in every pass."""
        raise NotImplementedError

    def reliability(self, output: Any, images: Images) -> Tensor | None:
        """Weights ``[U, H, W]`` of the pixels without a label, beside whether anything was seen there."""
        return None

    def shares(self, logits: Sequence[Tensor], seen_UHW: Tensor) -> Terms:
        """Numbers that show whether the views still tell one another anything."""
        raise NotImplementedError

    def loss(self, network: nn.Module, images: Images, objective: Objective, step: float) -> tuple[Tensor, Terms]:
        """The sum of the module's head."""
        count = images.labelled
        with self.autocast:
            output = network(images.rgb_B3HW, images.thermal_B1HW)
        views: tuple[SegmentationOutput, ...] = output[:3]
        label = images.label_BHW[:count]
        total, terms = objective(labelled_part(views[0], count), label)
        own = self.objectives(unwrapped(network), objective)
        for name, view, weight, teach in zip(self.view_names[1:], views[1:], self.label_weights, own, strict=True):
            value, _ = teach(labelled_part(view, count)._replace(auxiliary=()), label)
            total, terms[f"view_{name}"] = total + weight * value, value.detach()
        unlabelled = [view.logits[count:] for view in views]
        if (weight := ramped(self.cps_weight, self.ramp_epochs, step)) > 0:
            value = cross_pseudo_supervision(
                unlabelled,
                images.seen_UHW,
                threshold=self.threshold,
                agreement=self.agreement,
                reliability_BHW=self.reliability(output, images),
                class_balance=self.class_balance,
            )
            total, terms["cps"] = total + weight * value, value.detach()
        for name, weight, value in self.distilled(unwrapped(network), output):
            total, terms[name] = total + weight * value, value.detach()
        with torch.no_grad():
            terms |= self.shares(unlabelled, images.seen_UHW)
        return total, terms
