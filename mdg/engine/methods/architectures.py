"""Tri-training of three architectures on the same images: TriKD (arXiv 2309.12557).

    L = L_obj(S) + w_C L_C(C) + w_V L_V(V)                           where there is a label
      + λ_cps sum over views v and u != v of CE(v, arg max u)        where there is none
      + λ_low |P S^1 - C^1|^2                                        both, maps of stage 1
      + λ_high KL(attention of V, R M attention of S)                both, last blocks, mean over rows

S is the student, a light network and what is deployed; C is convolutional and teaches it local detail, V is a plain
vision transformer and teaches it relations over the whole image. P and M are 1x1 convolutions, from the width and the
heads of S to those of C and V; R brings the scores of S, before their softmax, from its grid to the finer one of V.
Nothing flows into C and V from what they teach.

Legend: B batch, K classes, H W image, U images without a label, h heads, N positions of the student, M of the teacher.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from torch import Tensor, nn

from mdg.config import RunConfig
from mdg.engine.methods.base import IGNORED, Terms
from mdg.engine.methods.three_views import ThreeViewMethod
from mdg.errors import ConfigError
from mdg.losses import Objective
from mdg.losses.pseudo_labels import feature_distance, resize_affinity, row_divergence
from mdg.models import build_model
from mdg.models.backbones.attention_scores import last_attention, last_attention_form
from mdg.models.layers import Linear
from mdg.models.segmentor import SegmentationOutput, padded_size
from mdg.models.single_stream import SingleStream
from mdg.ops.modes import float32_island
from mdg.options.methods import ArchitectureTriTrainingOptions
from mdg.registry import METHODS


class ArchitecturesOutput(NamedTuple):
    """What the three say of the same images; the student's map of stage 1 in the width of the convolutional view, and
    the scores of its last attention with those of the transformer, ``[B * h, M, M]``, where they are learnt."""

    student: SegmentationOutput
    cnn: SegmentationOutput
    vit: SegmentationOutput
    low_BhwC: Tensor | None
    high: tuple[Tensor, Tensor] | None


class ThreeArchitectures(nn.Module):
    """The student, its two teachers, and what brings its maps and scores to theirs.

    Args:
        student, cnn, vit: The three.
        objectives: What labels teach ``cnn`` and ``vit``, where it is not what they teach the student.
        low, high: Whether maps of stage 1, and scores of the last attention, are learnt.

    Raises:
        ConfigError: Scores are to be learnt, and the student or the transformer has none of its whole map.
    """

    def __init__(
        self,
        student: SingleStream,
        cnn: SingleStream,
        vit: SingleStream,
        *,
        objectives: dict[str, Objective],
        low: bool,
        high: bool,
    ):
        super().__init__()
        self.student, self.cnn, self.vit = student, cnn, vit
        self.objectives = nn.ModuleDict(objectives)  # here, so that their class weights are where the networks are
        self.projection = Linear(student.backbone.widths[0], cnn.backbone.widths[0]) if low else None
        self.heads = None
        if high:
            own, theirs = (last_attention_form(view.backbone) for view in (student, vit))
            self.strides = own.stride, theirs.stride
            self.heads = nn.Conv2d(own.heads, theirs.heads, 1, bias=False)  # of a bias no softmax would know

    def forward(self, rgb_B3HW: Tensor, thermal_B1HW: Tensor) -> ArchitecturesOutput:
        """One pass of each. Projections are here and not in the loss: what averages gradients over processes must see
        every weight that is used."""
        images = rgb_B3HW, thermal_B1HW
        with ExitStack() as stack:
            encoders = () if self.heads is None else (self.student.backbone, self.vit.backbone)
            scores = [stack.enter_context(last_attention(encoder)) for encoder in encoders]
            student, cnn, vit = self.student(*images), self.cnn(*images), self.vit(*images)
        low = None if self.projection is None else self.projection(student.maps[0][0])
        high = None
        if self.heads is not None:
            own_BhNN, theirs_BhMM = (one.logits_BhNN for one in scores)
            size = padded_size(rgb_B3HW.shape[-2:])
            grid, finer = ((size[0] // stride, size[1] // stride) for stride in self.strides)
            # The heads first: mapping and resizing commute, and the student's matrix is the smaller one.
            with float32_island(own_BhNN):
                mapped_BhNN = self.heads(own_BhNN)
            high = resize_affinity(mapped_BhNN.flatten(0, 1), grid, finer), theirs_BhMM.detach().flatten(0, 1)
        return ArchitecturesOutput(student, cnn, vit, low, high)


@METHODS.register(ArchitectureTriTrainingOptions)
class ArchitectureTriTraining(ThreeViewMethod):
    """See the module.

    Raises:
        ConfigError: The three do not see the same camera, or maps of theirs cannot be compared.
    """

    view_names = ("student", "cnn", "vit")

    def __init__(self, options: ArchitectureTriTrainingOptions, *, config: RunConfig, num_classes: int):
        weights = options.cnn_weight, options.vit_weight
        super().__init__(options, weights, config=config, num_classes=num_classes)
        self.given = {"cnn_view": options.cnn_view, "vit_view": options.vit_view}
        self.low_weight, self.high_weight = options.low_weight, options.high_weight
        self.own_losses = {"cnn": options.cnn_loss, "vit": options.vit_loss}
        if config.train.compile and self.high_weight:
            raise ConfigError(
                "train.compile: the scores of an attention are looked at while it runs, which a compiled network does "
                "not allow; set train.compile: false, or train.method.high_weight: 0"
            )

    def learner(self, network: nn.Module, *, load_pretrained: bool = True) -> nn.Module:
        """The three networks."""
        if not isinstance(network, SingleStream):
            raise ConfigError(
                "train.method: ArchitectureTriTraining needs a network of one encoder (model.type: SingleStream); "
                "TriTraining is for one of two streams"
            )
        cnn, vit = (self._view(key, network, load_pretrained) for key in self.given)
        objectives = {
            name: Objective(terms, self.config.auxiliary_loss, num_classes=self.num_classes, ignore_index=IGNORED)
            for name, terms in self.own_losses.items()
            if terms
        }
        low, high = self.low_weight > 0, self.high_weight > 0
        return ThreeArchitectures(network, cnn, vit, objectives=objectives, low=low, high=high)

    def _view(self, key: str, network: SingleStream, load_pretrained: bool) -> SingleStream:
        place = f"train.method.{key}"
        view = build_model(self.given[key], self.num_classes, load_pretrained=load_pretrained, key=place)
        if not isinstance(view, SingleStream) or view.needed_cameras != network.needed_cameras:
            raise ConfigError(
                f"{place}: expected a network that sees what the network itself sees, as {{type: SingleStream, input: "
                f"{network.input}}}"
            )
        return view

    def views(self, learner: nn.Module) -> dict[str, nn.Module]:
        """The two teachers."""
        assert isinstance(learner, ThreeArchitectures)
        return {"cnn": learner.cnn, "vit": learner.vit}

    def objectives(self, learner: nn.Module, objective: Objective) -> tuple[nn.Module, nn.Module]:
        """Their own, or that of the network."""
        assert isinstance(learner, ThreeArchitectures)
        cnn, vit = (learner.objectives[name] if terms else objective for name, terms in self.own_losses.items())
        return cnn, vit

    def distilled(self, learner: nn.Module, output: ArchitecturesOutput) -> Iterator[tuple[str, float, Tensor]]:
        """The map of stage 1 of the convolutional view, and the last attention of the transformer."""
        if output.low_BhwC is not None:
            yield "low", self.low_weight, feature_distance(output.low_BhwC, output.cnn.maps[0][0])
        if output.high is not None:
            yield "high", self.high_weight, row_divergence(*output.high)

    def shares(self, logits: Sequence[Tensor], seen_UHW: Tensor) -> Terms:
        """Share of what was seen without a label of which the student says what the other says; at one there is nothing
        left to tell it."""
        student_UHW, *others = (one.argmax(1) for one in logits)
        seen = seen_UHW.sum().clamp(min=1)
        return {
            f"agree_{name}": (((student_UHW == other_UHW) & seen_UHW).sum() / seen).float()
            for name, other_UHW in zip(self.view_names[1:], others, strict=True)
        }
