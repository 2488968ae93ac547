"""Options of the network and of each of its parts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat, field_validator, model_validator

from mdg.fields import Channels, Side, UserPath
from mdg.options.backbones import MixTransformerOptions, PlainViTOptions, PoolingEncoderOptions, TimmOptions, Variant
from mdg.registry import BACKBONES, DECODERS, FUSIONS, INTERACTIONS, MODELS, Options, component


class DivergenceOptions(Options):
    """How divergence becomes a mask."""

    mode: Literal["soft", "topk", "none"] = "soft"
    """`soft`: a sigmoid of a learned affine of the divergence, at all positions; `topk` (published): one at the
    positions that diverge most, zero at the others; `none`: one everywhere."""
    ratio: float = Field(0.5, gt=0, le=1)
    """Share of the positions that `topk` selects."""
    select: Literal["most", "least"] = "most"
    """Whether `topk` selects what diverges most (published) or, to see whether that matters, least."""
    soft_start: tuple[float, float] = (1.0, 2.0)
    """First slope and offset of the sigmoid of `soft`; these leave it nearly open."""
    projection: Channels | None = None
    """Width of a space into which one linear map per modality takes the features before they are compared; null
    compares the features themselves (published)."""
    gradient: Literal["selected", "all"] = "selected"
    """Positions at which `topk` lets the divergence learn: the selected ones, or `all` (published), which computes
    everything everywhere."""
    padding: Literal["ranked", "left_out"] = "ranked"
    """`left_out`: `topk` selects among the positions that show something; what is black in RGB and in thermal, as the
    padding of crops and rotations is, takes no share of them. `ranked` (published) selects among all."""


def _each_once(stages: list[int]) -> list[int]:
    if len(set(stages)) < len(stages):
        raise ValueError("expected every stage once")
    return stages


Stages = Annotated[list[Annotated[int, Field(ge=1, le=4)]], AfterValidator(_each_once)]


class LocalCrossAttentionOptions(Options):
    """Local cross-attention."""

    stages: Stages = Field([1, 2, 3, 4], min_length=1)
    """Stages that have it; published: all."""
    kernel_size: tuple[Side, Side, Side, Side] = (13, 7, 5, 5)
    """Side of the neighbourhood per stage, odd."""
    heads: tuple[Channels, Channels, Channels, Channels] | Literal["auto"] = (2, 4, 10, 16)
    """Attention heads per stage; `auto` takes those of about 32 channels each that divide the width of the stage."""
    drop_path: float = Field(0.1, ge=0, lt=1)
    """Stochastic depth of both residual branches."""
    negate_keys: bool = True
    """Attend to dissimilar neighbours (published); false attends to similar ones."""
    qk_norm: bool = False
    """Normalize queries and keys in every head, so that the scores follow the cosine, as the divergence does, and stay
    bounded at high learning rates; published: false."""
    layer_scale: float | None = Field(None, gt=0, le=1)
    """Multiply both residual branches by a learned number per channel that starts here; published: null, at one and
    not learned."""
    gate_activation: Literal["gelu", "relu"] = "gelu"
    """Inside the gate; published: `relu`."""

    @field_validator("kernel_size")
    @classmethod
    def _check_odd(cls, sides: tuple[int, ...]) -> tuple[int, ...]:
        if any(side % 2 == 0 for side in sides):
            raise ValueError("expected odd sides, so that a neighbourhood has a centre")
        return sides


StepSize = Annotated[float, Field(gt=0, le=100)]


class ChannelMambaOptions(Options):
    """Channel Mamba at the four stages."""

    expansion: tuple[Channels, Channels, Channels, Channels] = (4, 4, 2, 2)
    """Ratio of the scanned width to the width of the stage, per stage."""
    features: Channels = 32
    """Features per channel token."""
    state: Channels = 12
    """State size of the scan."""
    dt_rank: Channels = 2
    """Rank of the projection that makes the step size."""
    step_range: tuple[StepSize, StepSize] = (5e-2, 1.0)
    """Bounds of the first step sizes, drawn log-uniformly. Those of Mamba (published), 0.001 and 0.1, are made for
    sequences of thousands; the sequences here have 8 to 64 tokens."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout after the output projection and in the feed-forward network."""
    bidirectional: bool = True
    """Scan from thermal to RGB too, not only from RGB to thermal."""
    tokens: Literal["neighbouring", "strided"] = "neighbouring"
    """Channels of a token: neighbours, or (published) those at a distance of the number of tokens."""
    output_norm: Literal["width", "tokens"] = "width"
    """LayerNorm of what was scanned: over all channels, or (published) over the tokens of each feature."""
    residual: Literal["input", "normalized"] = "input"
    """What the output is added to: U, or (published) its LayerNorm."""

    @field_validator("step_range")
    @classmethod
    def _check_range(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        if bounds[0] > bounds[1]:
            raise ValueError("expected the lower bound first")
        return bounds


class InteractionOptions(Options):
    """Modality Divergence Interaction; each part can be switched off."""

    divergence: DivergenceOptions = DivergenceOptions()
    """How divergence becomes a mask."""
    local_attention: LocalCrossAttentionOptions | None = LocalCrossAttentionOptions()
    """Local cross-attention; null leaves it out."""
    channel_mamba: ChannelMambaOptions | None = ChannelMambaOptions()
    """Channel Mamba; null leaves it out."""
    write_back: Literal["change", "value"] = "change"
    """What the mask multiplies: the `change` V - F, or (published) the `value` V, which holds the features themselves
    once more."""
    learned_scale: bool = False
    """Multiply what is written back by a learned number per channel and stream, which starts at zero."""
    sparse: bool = True
    """With `topk`, compute the scan and what follows at the selected positions only; false computes everywhere and
    masks (same result, kept as the reference)."""


MapSide = Annotated[int, Field(ge=2, le=16384)]
Norm = Literal["layer", "batch"]


class FeatureRectificationOptions(Options):
    """Feature rectification of CMX."""

    channel_share: float = Field(0.5, ge=0, le=1)
    """Share of what the gate per channel lets through."""
    spatial_share: float = Field(0.5, ge=0, le=1)
    """Share of what the gate per position lets through."""


class CrossModalFusionOptions(Options):
    """The published fusion."""

    squeeze_bias: bool = True
    """Biases in squeeze-and-excitation; published: none."""
    output_norm: Norm | None = None
    """What normalizes the fused map before the decoder reads it; published: nothing."""


class SpatialMambaFusionOptions(Options):
    """Fusion by scans over space, after Sigma."""

    expansion: int = Field(2, ge=1, le=8)
    """Ratio of the scanned width to the width of the stage."""
    state: Channels = 4
    """State size of the scans."""


class FeatureFusionOptions(Options):
    """Feature fusion of CMX."""

    heads: tuple[Channels, Channels, Channels, Channels] = (1, 2, 5, 8)
    """Attention heads per stage."""


class SemanticDynamicDecoderOptions(Options):
    """Semantic Dynamic Decoder."""

    embed_dim: Channels = 256
    """Width of the four maps before the head."""
    dynamic_stages: list[int] = [1, 2, 3]
    """Stages whose linear layer is generated from the deepest map; the others use a static one."""
    groups: tuple[Channels, Channels, Channels] = (8, 8, 16)
    """Groups of the generator at stages 1 to 3."""
    generator_rate: float = Field(1.0, gt=0, le=1)
    """Share of the learning rate at which generated matrices learn: each of their numbers adds up the conditions of its
    group, 8 or 16, and moves so many times faster than that of a plain layer. Published: 1."""
    condition_norm: tuple[Norm, Norm, Norm] = ("layer", "layer", "layer")
    """Norm in the condition branch of stages 1 to 3; published: `layer`, `batch`, `batch`."""
    star_relu: tuple[float, float] = (0.8944, -0.4472)
    """First scale and bias of StarReLU; published: 1, 0."""
    frequency_stages: list[int] = [1]
    """Stages multiplied by the dynamic frequency gate; empty turns it off."""
    frequency_filters: Channels = 8
    """Filters in the bank of the gate."""
    frequency_routes: Literal["softmax", "free"] = "softmax"
    """Weights of the filters: a mean, or (published) any numbers."""
    frequency_reference: tuple[MapSide, MapSide] = (120, 160)
    """Map size [height, width] whose spectrum the bank is stored for; other sizes are interpolated."""
    highpass_cutoff: float = Field(0.25, ge=0, lt=1)
    """Frequencies below this fraction of Nyquist are removed in the gate's branch; 0 keeps all."""
    highpass_bins: float | None = Field(None, gt=0)
    """Radius of the high-pass in bins of the spectrum of a map of the reference size, in place of `highpass_cutoff`;
    published: 35."""
    hermitian: bool = False
    """Make the gate symmetric in the two columns of the half spectrum in which a real map is; where it is not, an
    inverse transform of a GPU does as it pleases."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Channel dropout before the classifier."""

    @field_validator("dynamic_stages", "frequency_stages")
    @classmethod
    def _check_stages(cls, stages: list[int]) -> list[int]:
        if not set(stages) <= {1, 2, 3} or len(set(stages)) != len(stages):
            raise ValueError("expected different stages out of 1, 2, 3")
        return stages


class SegFormerDecoderOptions(Options):
    """All-MLP decoder."""

    embed_dim: Channels = 256
    """Width of the four maps before the head."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Channel dropout before the classifier."""


class UperNetDecoderOptions(Options):
    """UperNet."""

    embed_dim: Channels = 512
    """Width of the pyramid."""
    grids: list[Channels] = Field([1, 2, 3, 6], min_length=1)
    """Sides of the grids that the deepest map is pooled to."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Channel dropout before the classifier."""


class DualFrequencyDecoderOptions(Options):
    """UperNet with frequency selection."""

    level_widths: tuple[Channels, Channels, Channels, Channels] | Literal["tiny", "cnn", "vit"] = "tiny"
    """Channels of the four levels: those published for a TinyViT (48, 96, 192, 320), a ResNet-101 (`cnn`: 128, 256,
    256, 512) or a plain ViT (`vit`: 48, 96, 192, 256), or four numbers."""
    pool_sizes: list[Channels] = Field([1, 2, 3, 6], min_length=1)
    """Sides of the grids that the deepest map is pooled to."""
    low_stages: list[Annotated[int, Field(ge=1, le=3)]] = [3]
    """Stages whose channels are weighed by their low frequencies."""
    high_stages: list[Annotated[int, Field(ge=1, le=3)]] = [1, 2]
    """Stages whose channels are weighed by their high frequencies; a stage in neither list is not weighed."""
    sigma: float = Field(10.0, gt=0)
    """Standard deviation of the Gaussian that parts low from high, in bins of the spectrum of the map at hand."""
    embed_dim: Channels = 256
    """Width before the classifier."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Channel dropout before the classifier."""

    @field_validator("low_stages", "high_stages")
    @classmethod
    def _check_stages(cls, stages: list[int]) -> list[int]:
        if not set(stages) <= {1, 2, 3} or len(set(stages)) != len(stages):
            raise ValueError("expected different stages out of 1, 2, 3")
        return stages

    @model_validator(mode="after")
    def _one_band_a_stage(self) -> DualFrequencyDecoderOptions:
        both = sorted(set(self.low_stages) & set(self.high_stages))
        if both:
            raise ValueError(f"got stage {both[0]} in low_stages and in high_stages, expected it in one of them")
        return self


class NormalizationOptions(Options):
    """Statistics of the inputs as fractions of full scale."""

    rgb_mean: tuple[float, float, float] | None = (0.485, 0.456, 0.406)
    """Mean of R, G, B; null takes what the encoder's weights were trained with."""
    rgb_std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = (0.229, 0.224, 0.225)
    """Standard deviation of R, G, B; null takes what the encoder's weights were trained with."""
    thermal_mean: float = 0.499
    """Mean of thermal."""
    thermal_std: float = Field(0.266, gt=0)
    """Standard deviation of thermal."""


def _automatic(value: Any) -> Any:
    return NormalizationOptions(rgb_mean=None, rgb_std=None) if value == "auto" else value


Normalization = Annotated[
    NormalizationOptions, BeforeValidator(_automatic, json_schema_input_type=NormalizationOptions | Literal["auto"])
]


class PretrainedOptions(Options):
    """Files of encoder weights (`mit_b2.pth`, in any layout of a Mix Transformer); null trains from scratch."""

    rgb: UserPath | None = None
    """File for the RGB encoder; null trains it from scratch."""
    thermal: UserPath | None = None
    """File for the thermal encoder; null trains it from scratch."""


class SegmentorOptions(Options):
    """The MDG network."""

    rgb_backbone: component(BACKBONES) = Field(default="b2", validate_default=True)  # type: ignore[valid-type]
    """Encoder of the RGB stream; `b0` .. `b5` for short."""
    thermal_backbone: component(BACKBONES) = Field(default="b2", validate_default=True)  # type: ignore[valid-type]
    """Encoder of the one-channel thermal stream; `b1` beside an RGB `b2` is the published asymmetric pair."""
    interaction: component(INTERACTIONS) | None = Field(  # type: ignore[valid-type]
        default="ModalityDivergenceInteraction", validate_default=True
    )
    """Exchange between the streams after each stage; null keeps them apart."""
    fusion: component(FUSIONS) = Field(default="CrossModalFusion", validate_default=True)  # type: ignore[valid-type]
    """One map out of two, after each stage."""
    decoder: component(DECODERS) = Field(  # type: ignore[valid-type]
        default="SemanticDynamicDecoder", validate_default=True
    )
    """Fused maps to logits."""
    auxiliary_heads: bool = True
    """One all-MLP head per stream while training."""
    auxiliary_embed_dim: Channels = 256
    """Width of the auxiliary heads; published: 512."""
    auxiliary_thermal: Literal["after", "before"] = "after"
    """Thermal maps that the auxiliary head sees: after the interaction, or (published) before it."""
    stand_ins: Literal["zero", "learned"] | None = None
    """What stands in, at every stage, for a camera that is absent: nothing (null: both cameras are needed), zeros, or a
    learned vector. It is trained with `train.modality_dropout`."""
    interaction_stages: Stages = [1, 2, 3, 4]
    """Stages after which the streams interact; at the others they stay apart."""
    normalize: Normalization = NormalizationOptions()
    """Statistics of the inputs as fractions of full scale; `tools/check_data.py` prints those of your files. `auto`
    takes those of R, G, B from the encoder."""
    pretrained: PretrainedOptions | None = None
    """Encoder weights to start from (`mit_b2.pth`, in any layout of a Mix Transformer); null trains from scratch."""
    twin_start: bool = False
    """Where they are not pretrained, start both encoders from the same weights, as two copies of one pretrained encoder
    do, so that their features can be compared from the first step on."""

    def encoder_files(self) -> dict[str, Path | None]:
        """Files of weights by the encoder that starts from them."""
        pretrained = self.pretrained or PretrainedOptions()
        return {"rgb_backbone": pretrained.rgb, "thermal_backbone": pretrained.thermal}


class StreamOptions(Options):
    """Parts of a network with one encoder."""

    backbone: component(BACKBONES) = Field(default="b2", validate_default=True)  # type: ignore[valid-type]
    """Encoder; `b0` .. `b5` for short."""
    decoder: component(DECODERS) = Field(default="SegFormerDecoder", validate_default=True)  # type: ignore[valid-type]
    """Maps to logits."""
    normalize: Normalization = NormalizationOptions()
    """Statistics of the inputs as fractions of full scale; `tools/check_data.py` prints those of your files. `auto`
    takes those of R, G, B from the encoder."""


class SingleStreamOptions(StreamOptions):
    """A network of one modality, or of both in one image."""

    input: Literal["rgb", "thermal", "both"] = "rgb"
    """What the encoder sees: one modality, or `both` as an image of four channels (early fusion)."""
    pretrained: UserPath | None = None
    """File of encoder weights to start from, in any layout of a Mix Transformer; null trains from scratch."""

    def encoder_files(self) -> dict[str, Path | None]:
        """Files of weights by the encoder that starts from them."""
        return {"backbone": self.pretrained}


class LateFusionOptions(StreamOptions):
    """Two networks, one of each modality, whose probabilities are averaged."""

    pretrained: PretrainedOptions | None = None
    """Encoder weights to start from, in any layout of a Mix Transformer; null trains from scratch."""

    def stream(self, input: Literal["rgb", "thermal"]) -> SingleStreamOptions:
        """The options of the network of one modality."""
        return SingleStreamOptions(backbone=self.backbone, decoder=self.decoder, normalize=self.normalize, input=input)

    def encoder_files(self) -> dict[str, Path | None]:
        """Files of weights by the encoder that starts from them."""
        pretrained = self.pretrained or PretrainedOptions()
        return {"rgb.backbone": pretrained.rgb, "thermal.backbone": pretrained.thermal}


MODELS.declare(MDG=SegmentorOptions, SingleStream=SingleStreamOptions, LateFusion=LateFusionOptions)
BACKBONES.declare(
    MixTransformer=MixTransformerOptions,
    PoolingEncoder=PoolingEncoderOptions,
    Timm=TimmOptions,
    PlainViT=PlainViTOptions,
)
for _variant in get_args(Variant):
    BACKBONES.preset(_variant, type="MixTransformer", variant=_variant)
INTERACTIONS.declare(ModalityDivergenceInteraction=InteractionOptions, FeatureRectification=FeatureRectificationOptions)
FUSIONS.declare(
    CrossModalFusion=CrossModalFusionOptions,
    AddFusion=Options,
    ConcatFusion=Options,
    FeatureFusion=FeatureFusionOptions,
    SpatialMambaFusion=SpatialMambaFusionOptions,
)
DECODERS.declare(
    SemanticDynamicDecoder=SemanticDynamicDecoderOptions,
    SegFormerDecoder=SegFormerDecoderOptions,
    UperNetDecoder=UperNetDecoderOptions,
    DualFrequencyDecoder=DualFrequencyDecoderOptions,
)
