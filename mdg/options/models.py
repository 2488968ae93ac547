"""Options of the network and of each of its parts."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, PositiveFloat, field_validator

from mdg.fields import Channels, Side, UserPath
from mdg.registry import BACKBONES, DECODERS, FUSIONS, INTERACTIONS, MODELS, Options, component

Variant = Literal["b0", "b1", "b2", "b3", "b4", "b5"]


class MixTransformerOptions(Options):
    """A MiT encoder."""

    variant: Variant = "b2"
    """Widths and depths: b0 is the smallest, b5 the deepest."""
    drop_path_rate: float = Field(0.1, ge=0, lt=1)
    """Stochastic depth of the last block; it rises linearly from 0 over the blocks."""


class DivergenceOptions(Options):
    """How divergence becomes a mask."""

    mode: Literal["topk", "soft", "none"] = "topk"
    """`topk`: the positions that diverge most; `soft`: a sigmoid of a learned affine of the divergence; `none`: all."""
    ratio: float = Field(0.5, gt=0, le=1)
    """Share of the positions that `topk` selects."""


class LocalCrossAttentionOptions(Options):
    """Local cross-attention at the four stages."""

    kernel_size: tuple[Side, Side, Side, Side] = (13, 7, 5, 5)
    """Side of the neighbourhood per stage, odd."""
    heads: tuple[Channels, Channels, Channels, Channels] = (2, 4, 10, 16)
    """Attention heads per stage."""
    drop_path: float = Field(0.1, ge=0, lt=1)
    """Stochastic depth of both residual branches."""
    negate_keys: bool = True
    """Attend to dissimilar neighbours (published); false attends to similar ones."""

    @field_validator("kernel_size")
    @classmethod
    def _check_odd(cls, sides: tuple[int, ...]) -> tuple[int, ...]:
        if any(side % 2 == 0 for side in sides):
            raise ValueError("expected odd sides, so that a neighbourhood has a centre")
        return sides


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
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout after the output projection and in the feed-forward network."""
    bidirectional: bool = True
    """Scan from thermal to RGB too, not only from RGB to thermal."""


class InteractionOptions(Options):
    """Modality Divergence Interaction; each part can be switched off."""

    divergence: DivergenceOptions = DivergenceOptions()
    """How divergence becomes a mask."""
    local_attention: LocalCrossAttentionOptions | None = LocalCrossAttentionOptions()
    """Local cross-attention; null leaves it out."""
    channel_mamba: ChannelMambaOptions | None = ChannelMambaOptions()
    """Channel Mamba; null leaves it out."""
    sparse: bool = True
    """Compute the scan and what follows at the selected positions only; false computes everywhere and masks (same
    result, kept as the reference)."""


MapSide = Annotated[int, Field(ge=2, le=16384)]


class SemanticDynamicDecoderOptions(Options):
    """Semantic Dynamic Decoder."""

    embed_dim: Channels = 256
    """Width of the four maps before the head."""
    dynamic_stages: list[int] = [1, 2, 3]
    """Stages whose linear layer is generated from the deepest map; the others use a static one."""
    groups: tuple[Channels, Channels, Channels] = (8, 8, 16)
    """Groups of the generator at stages 1 to 3."""
    frequency_stages: list[int] = [1]
    """Stages multiplied by the dynamic frequency gate; empty turns it off."""
    frequency_filters: Channels = 8
    """Filters in the bank of the gate."""
    frequency_reference: tuple[MapSide, MapSide] = (120, 160)
    """Map size [height, width] whose spectrum the bank is stored for; other sizes are interpolated."""
    highpass_cutoff: float = Field(0.25, ge=0, lt=1)
    """Frequencies below this fraction of Nyquist are removed in the gate's branch; 0 keeps all."""
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


class NormalizationOptions(Options):
    """Statistics of the inputs as fractions of full scale."""

    rgb_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Mean of R, G, B."""
    rgb_std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    """Standard deviation of R, G, B."""
    thermal_mean: float = 0.499
    """Mean of thermal."""
    thermal_std: float = Field(0.266, gt=0)
    """Standard deviation of thermal."""


class PretrainedOptions(Options):
    """Files of encoder weights in the public SegFormer layout (`mit_b2.pth`); null trains that stream from scratch."""

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
    normalize: NormalizationOptions = NormalizationOptions()
    """Statistics of the inputs as fractions of full scale; `tools/check_data.py` prints those of your files."""
    pretrained: PretrainedOptions | None = None
    """Encoder weights to start from, in the public SegFormer layout (`mit_b2.pth`); null trains from scratch."""


MODELS.declare(MDG=SegmentorOptions)
BACKBONES.declare(MixTransformer=MixTransformerOptions)
for _variant in get_args(Variant):
    BACKBONES.preset(_variant, type="MixTransformer", variant=_variant)
INTERACTIONS.declare(ModalityDivergenceInteraction=InteractionOptions)
FUSIONS.declare(CrossModalFusion=Options, AddFusion=Options, ConcatFusion=Options)
DECODERS.declare(SemanticDynamicDecoder=SemanticDynamicDecoderOptions, SegFormerDecoder=SegFormerDecoderOptions)
