"""Tri-training: three views of a pair teach one another, and the two of one camera teach the one of both.

    L = L_obj(F) + w_R CE(R) + w_T CE(T)                             where there is a label
      + λ_cps sum over views v and u != v of CE(v, arg max u)        where there is none
      + λ_low (|P F_r^1 - R^1|^2 + |P' F_t^1 - T^1|^2)               both, maps of stage 1
      + λ_high (KL(R^4, F_r^4) + KL(T^4, F_t^4))                     both, affinities of stage 4

F sees both cameras and is deployed; R sees RGB, T sees thermal. By default they are networks of their own, for errors
must differ: behind the interaction each inner stream of F carries the other camera. After TriKD (arXiv 2309.12557),
whose three views are three architectures on one image.

Legend: U images without a label, K classes, H W image, h w map of a stage, C width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mdg.config import RunConfig
from mdg.engine.methods.base import Images, Terms, foreground_share
from mdg.engine.methods.three_views import ThreeViewMethod
from mdg.errors import ConfigError
from mdg.losses.pseudo_labels import affinity_divergence, feature_distance
from mdg.models.decoders.segformer import SegFormerDecoder
from mdg.models.layers import Linear
from mdg.models.segmentor import SegmentationOutput, Segmentor, padded_size
from mdg.models.single_stream import SingleStream
from mdg.ops.resize import resize_bilinear
from mdg.options.methods import TriTrainingOptions
from mdg.options.models import SegFormerDecoderOptions, SegmentorOptions
from mdg.registry import METHODS, MODELS


class ViewsOutput(NamedTuple):
    """What the three views say of the same images."""

    fused: SegmentationOutput
    rgb: SegmentationOutput
    thermal: SegmentationOutput


class ThreeViews(nn.Module):
    """The network that sees both cameras, and those that see one.

    Args:
        student: Sees both.
        rgb, thermal: See one each.
        widths: Of stage 1 of the student's encoders and of the two, where it learns their maps; else None.
    """

    def __init__(
        self, student: Segmentor, rgb: nn.Module, thermal: nn.Module, widths: tuple[tuple[int, int], ...] | None
    ):
        super().__init__()
        self.student, self.rgb, self.thermal = student, rgb, thermal
        self.projections = None if widths is None else nn.ModuleList(Linear(own, other) for own, other in widths)

    def forward(self, rgb_B3HW: Tensor, thermal_B1HW: Tensor) -> ViewsOutput:
        """One pass of each view."""
        images = rgb_B3HW, thermal_B1HW
        fused = self.student(*images)
        if self.projections is not None:
            # Here and not in the loss: what averages gradients over processes must see every weight that is used.
            first = tuple(project(maps[0]) for project, maps in zip(self.projections, fused.maps, strict=True))
            fused = fused._replace(maps=tuple((one, *maps[1:]) for one, maps in zip(first, fused.maps, strict=True)))
        if isinstance(self.rgb, StreamHead):
            assert isinstance(self.thermal, StreamHead)
            return ViewsOutput(fused, self.rgb.of(fused, rgb_B3HW), self.thermal.of(fused, thermal_B1HW))
        return ViewsOutput(fused, self.rgb(*images), self.thermal(*images))


class StreamHead(nn.Module):
    """An all-MLP head on an encoder of the student, before the streams interact at the stage: the view of one camera.

    Args:
        stream: 0 for RGB, 1 for thermal.
        widths: Of the encoder.
        num_classes: ``K``.
    """

    def __init__(self, stream: int, widths: tuple[int, ...], num_classes: int):
        super().__init__()
        self.stream = stream
        self.head = SegFormerDecoder(SegFormerDecoderOptions(embed_dim=256), widths=widths, num_classes=num_classes)

    def of(self, fused: SegmentationOutput, image_BCHW: Tensor) -> SegmentationOutput:
        """The view's output from a pass of the student."""
        maps, (height, width) = fused.maps[self.stream], image_BCHW.shape[-2:]
        logits = resize_bilinear(self.head(list(maps)), padded_size((height, width)))
        return SegmentationOutput(logits[..., :height, :width])


@METHODS.register(TriTrainingOptions)
class TriTraining(ThreeViewMethod):
    """See the module.

    Raises:
        ConfigError: The network is not of two streams, or views share no common map where one is to be learnt.
    """

    view_names = ("fused", "rgb", "thermal")

    def __init__(self, options: TriTrainingOptions, *, config: RunConfig, num_classes: int):
        super().__init__(options, (options.rgb_weight, options.thermal_weight), config=config, num_classes=num_classes)
        self.shared, self.given = options.views == "shared", {"rgb": options.rgb_view, "thermal": options.thermal_view}
        self.low_weight, self.high_weight = options.low_weight, options.high_weight
        self.by_divergence = options.reliability == "divergence"
        if not isinstance(config.model, SegmentorOptions):
            raise ConfigError(
                "train.method: TriTraining needs a network of two streams (model.type: MDG), whose cameras are the "
                "other two views"
            )
        if self.shared and any(self.given.values()):
            raise ConfigError("train.method: views: shared takes no rgb_view and no thermal_view; leave either out")

    def learner(self, network: nn.Module, *, load_pretrained: bool = True) -> nn.Module:
        """The three views."""
        assert isinstance(network, Segmentor)
        widths = tuple(network.rgb_backbone.widths)
        if self.shared:
            rgb_head, thermal_head = (StreamHead(stream, widths, self.num_classes) for stream in range(2))
            return ThreeViews(network, rgb_head, thermal_head, None)
        rgb, thermal = self._view("rgb", network.rgb_backbone), self._view("thermal", network.thermal_backbone)
        pairs = tuple((widths[0], _widths(view)[0]) for view in (rgb, thermal)) if self.low_weight else None
        return ThreeViews(network, rgb, thermal, pairs)

    def _view(self, camera: str, encoder: nn.Module) -> nn.Module:
        """A view with weights of its own, or with those that the network's encoder of the same camera starts from."""
        given, model = self.given[camera], self.config.model
        alike = given is None
        if alike:
            plain = model.model_dump(mode="json")
            given = {
                "type": "SingleStream",
                "input": camera,
                "backbone": plain[f"{camera}_backbone"],
                "normalize": plain["normalize"],
            }
        view = MODELS.create(given, num_classes=self.num_classes)
        if not isinstance(view, SingleStream) or view.needed_cameras != (camera,):
            raise ConfigError(
                f"train.method.{camera}_view: expected a network that sees {camera} alone, as {{type: SingleStream, "
                f"input: {camera}}}"
            )
        if getattr(given, "pretrained", None) is not None:
            raise ConfigError(
                f"train.method.{camera}_view.pretrained: views of their own start from scratch; leave {camera}_view "
                f"out, and the view starts from model.pretrained.{camera}"
            )
        if alike and model.encoder_files()[f"{camera}_backbone"] is not None:
            view.backbone.load_state_dict(encoder.state_dict())
        return view

    def views(self, learner: nn.Module) -> dict[str, nn.Module]:
        """R and T; heads on the student's own encoders are scored with it only by their losses."""
        assert isinstance(learner, ThreeViews)
        return {} if isinstance(learner.rgb, StreamHead) else {"rgb": learner.rgb, "thermal": learner.thermal}

    def distilled(self, learner: nn.Module, output: ViewsOutput) -> Iterator[tuple[str, float, Tensor]]:
        """Maps of stage 1 and affinities of stage 4, of both streams."""
        assert isinstance(learner, ThreeViews)
        if self.low_weight and learner.projections is not None:
            yield "low", self.low_weight, _summed(feature_distance, output, stage=0)
        if self.high_weight and output.rgb.maps:
            yield "high", self.high_weight, _summed(affinity_divergence, output, stage=-1)

    def reliability(self, output: ViewsOutput, images: Images) -> Tensor | None:
        """How far the cameras agree, where that is asked for."""
        if not self.by_divergence:
            return None
        return _agreement_of_cameras(output.fused, images.labelled, images.seen_UHW.shape[-2:])

    def shares(self, logits: Sequence[Tensor], seen_UHW: Tensor) -> Terms:
        """Of the pseudo-labels that are not background: where they fall to zero, all views agree on nothing."""
        return {
            f"foreground_{name}": foreground_share(view.argmax(1), seen_UHW)
            for name, view in zip(self.view_names, logits, strict=True)
        }


def _summed(measure: Callable[[Tensor, Tensor], Tensor], output: ViewsOutput, stage: int) -> Tensor:
    """Of both streams of the network and the views of the same cameras, at a stage."""
    pairs = zip(output.fused.maps, (output.rgb, output.thermal), strict=True)
    first, second = (measure(own[stage], view.maps[0][stage]) for own, view in pairs)
    return first + second


def _widths(view: nn.Module) -> tuple[int, ...]:
    assert isinstance(view, SingleStream)
    return tuple(view.backbone.widths)


@torch.no_grad()
def _agreement_of_cameras(fused: SegmentationOutput, count: int, size: torch.Size) -> Tensor:
    """``[U, H, W]`` in 0..1: one less half of the cosine divergence of the network's own measure at the first stage."""
    if not fused.divergence:
        raise ConfigError("train.method.reliability: divergence: this network measures none; set reliability: none")
    divergence_U1hw = fused.divergence[0].divergence_BHW[count:, None].float()
    wide = resize_bilinear(divergence_U1hw, padded_size(size))[:, 0, : size[0], : size[1]]
    return (1 - wide / 2).clamp(0, 1)
