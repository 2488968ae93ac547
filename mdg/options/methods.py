"""Options of the methods of training: what is learnt from, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mdg.registry import LOSSES, METHODS, MODELS, Options, component

Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Epochs = Annotated[float, Field(ge=0)]


class SupervisedOptions(Options):
    """Labels alone."""


class ViewsOptions(Options):
    """What three views learn from one another."""

    cps_weight: Weight = 0.1
    """Of the classes that each view learns from the two others where there is no label."""
    ramp_epochs: Epochs = 0.0
    """Epochs over which that weight grows from zero; encoders from scratch need some, for at first all is
    background."""
    threshold: Share = 0.0
    """A class whose probability is below this is not learnt from."""
    agreement: bool = False
    """Learn from the two others only where they agree."""
    class_balance: bool = False
    """Every class counts alike, however many pixels it has."""


class TriTrainingOptions(ViewsOptions):
    """Three views of a pair teach one another: both cameras together, RGB, thermal."""

    views: Literal["separate", "shared"] = "separate"
    """`separate`: networks of their own see RGB and thermal; `shared`: heads on the encoders of the network itself,
    before they interact, which costs little and shares errors."""
    rgb_view: component(MODELS) | None = None  # type: ignore[valid-type]
    """Network that sees RGB; null takes the RGB encoder of the network with an all-MLP head."""
    thermal_view: component(MODELS) | None = None  # type: ignore[valid-type]
    """Network that sees thermal; null takes the thermal encoder of the network with an all-MLP head."""
    rgb_weight: Weight = 1.0
    """Of the labels for the RGB view, beside 1 for both cameras."""
    thermal_weight: Weight = 1.0
    """Of the labels for the thermal view."""
    low_weight: Weight = 0.5
    """Of the maps of stage 1, which the network's two encoders learn from those of the views."""
    high_weight: Weight = 0.0
    """Of the affinities of all positions at stage 4, likewise."""
    reliability: Literal["none", "divergence"] = "none"
    """`divergence`: learn less where the two cameras diverge, by the network's own measure at stage 1."""


CNN_VIEW = {
    "type": "SingleStream",
    "input": "rgb",
    "backbone": {"type": "Timm", "name": "resnet101d"},
    "decoder": {"type": "DualFrequencyDecoder", "level_widths": "cnn"},
}
VIT_VIEW = {
    "type": "SingleStream",
    "input": "rgb",
    "backbone": {"type": "PlainViT", "name": "deit_base_distilled_patch16_384"},
    "decoder": {"type": "DualFrequencyDecoder", "level_widths": "vit"},
}


class ArchitectureTriTrainingOptions(ViewsOptions):
    """Three architectures that see the same images teach one another, and the two heavy ones teach the network, which
    alone is deployed."""

    cnn_view: component(MODELS) = Field(default=CNN_VIEW, validate_default=True)  # type: ignore[valid-type]
    """Convolutional network, whose map of stage 1 is learnt; by default a ResNet-101 with a deep stem."""
    vit_view: component(MODELS) = Field(default=VIT_VIEW, validate_default=True)  # type: ignore[valid-type]
    """Plain vision transformer, whose last attention is learnt; by default the distilled DeiT-B."""
    cnn_weight: Weight = 1.0
    """Of the labels for the convolutional view, beside 1 for the network."""
    vit_weight: Weight = 1.0
    """Of the labels for the transformer."""
    cnn_loss: list[component(LOSSES)] = []  # type: ignore[valid-type]
    """Weighted terms on the labels for the convolutional view; empty takes `loss`, as the network does."""
    vit_loss: list[component(LOSSES)] = Field(  # type: ignore[valid-type]
        default=["CrossEntropy"], validate_default=True
    )
    """Weighted terms on the labels for the transformer; empty takes `loss`."""
    low_weight: Weight = 0.9
    """Of the map of stage 1, which the network learns from the convolutional view; published: 0.9 for an encoder of
    11 M, 0.5 for one of 21 M."""
    high_weight: Weight = 0.5
    """Of the last attention, which the network's last block (`global_last_block`) learns from the transformer."""


class MeanTeacherOptions(Options):
    """The moving average of the network teaches the network."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Of the average; that of step t is at most 1 - 1 / (t + 1)."""
    weight: Weight = 1.0
    """Of the probabilities that are learnt where there is no label."""
    ramp_epochs: Epochs = 0.0
    """Epochs over which that weight grows from zero."""


class StrongWeakOptions(Options):
    """What the network says of an image teaches it about the same image, changed strongly."""

    threshold: Share = 0.95
    """A class whose probability is below this is not learnt from."""
    weight: Weight = 1.0
    """Of what is learnt where there is no label."""
    ramp_epochs: Epochs = 0.0
    """Epochs over which that weight grows from zero."""
    strength: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Of the changes in brightness, contrast and saturation."""
    cutmix: Share = 0.5
    """Share of the images of which a part is replaced by that of another one."""


METHODS.declare(
    Supervised=SupervisedOptions,
    TriTraining=TriTrainingOptions,
    ArchitectureTriTraining=ArchitectureTriTrainingOptions,
    MeanTeacher=MeanTeacherOptions,
    StrongWeak=StrongWeakOptions,
)
