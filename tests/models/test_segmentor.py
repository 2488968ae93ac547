from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mdg.config import load_config
from mdg.errors import ConfigError
from mdg.models import build_model
from mdg.models.backbones.mit import VARIANTS
from mdg.models.segmentor import pad_to_stride
from mdg.registry import BACKBONES

INTERACTION = "ModalityDivergenceInteraction"
DECODER = "SemanticDynamicDecoder"


def images(size=(64, 96), batch: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rgb = torch.randint(0, 256, (batch, 3, *size), generator=generator, dtype=torch.uint8)
    return rgb, torch.randint(0, 256, (batch, 1, *size), generator=generator, dtype=torch.uint8)


def million(*modules: nn.Module | None) -> float:
    return sum(p.numel() for module in modules if module is not None for p in module.parameters()) / 1e6


# --- sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rgb", "thermal", "total"), [("b2", "b1", 55.31), ("b2", "b2", 66.36), ("b0", "b0", 11.53)])
def test_number_of_parameters(rgb, thermal, total):
    options = {"type": "MDG", "rgb_backbone": rgb, "thermal_backbone": thermal, "auxiliary_heads": False}
    with torch.device("meta"):
        assert million(build_model(options, 9)) == pytest.approx(total, rel=0.01)


ROWS = re.findall(
    r"^\| `(\w+\.yaml)` \(b\d.*?\) \| ([\d.]+) M \| (.*) \|$", Path("docs/model.md").read_text("utf-8"), re.M
)


def test_the_page_has_the_sizes_of_the_shipped_networks():
    assert {name for name, *_ in ROWS} >= {"mdg_b0.yaml", "mdg_b2.yaml", "mdg_b4.yaml", "published.yaml"}


@pytest.mark.parametrize(("name", "total", "parts"), ROWS, ids=[name for name, *_ in ROWS])
def test_number_of_parameters_of_the_configurations(name, total, parts):
    options = load_config(Path("configs/mfnet") / name, ["model.pretrained=null"]).model
    with torch.device("meta"):
        model = build_model(options, 9)
    got = [
        million(model) - million(model.auxiliary),
        million(model.rgb_backbone),
        million(model.thermal_backbone),
        million(*(stage.attention for stage in model.interaction)),
        million(*(stage.mamba for stage in model.interaction)),
        million(model.fusion),
        million(model.decoder),
    ]
    assert got == pytest.approx([float(number) for number in (total, *parts.split(" | "))], abs=0.006)


def test_number_of_parameters_of_the_parts():
    with torch.device("meta"):
        model = build_model({"type": "MDG", "auxiliary_heads": False}, 9)
    expected = {
        "rgb encoder": (million(model.rgb_backbone), 24.20),
        "thermal encoder": (million(model.thermal_backbone), 24.19),
        "local cross-attention": (million(*(stage.attention for stage in model.interaction)), 7.72),
        "channel Mamba": (million(*(stage.mamba for stage in model.interaction)), 3.20),
        "fusion": (million(model.fusion), 2.46),
        "decoder": (million(model.decoder), 4.59),
    }
    for part, (got, published) in expected.items():
        assert got == pytest.approx(published, rel=0.01), part
    assert million(BACKBONES.create("b1", in_channels=1)) == pytest.approx(13.15, rel=0.01)


@pytest.mark.parametrize(
    "size", [(1, 1), (16, 40), (31, 33), (64, 96), (97, 131), pytest.param((473, 629), marks=pytest.mark.slow)], ids=str
)
def test_logits_have_the_size_of_the_input(small_model, size):
    with torch.no_grad():
        output = small_model().eval()(*images(size))
    assert output.logits.shape == (1, 5, *size) and output.logits.isfinite().all()
    assert output.auxiliary == ()
    padded = [-(-side // 32) * 8 for side in size]
    assert [tuple(d.divergence_BHW.shape[1:]) for d in output.divergence] == [
        (padded[0] // 2**s, padded[1] // 2**s) for s in range(4)
    ]


@pytest.mark.parametrize(("size", "mode"), [((33, 64), "reflect"), ((97, 131), "reflect"), ((5, 40), "replicate")])
def test_padding(draw, size, mode):
    x = draw(1, 2, *size)
    padded = pad_to_stride(x)
    bottom, right = -size[0] % 32, -size[1] % 32
    torch.testing.assert_close(padded, F.pad(x, (0, right, 0, bottom), mode=mode))
    assert padded.shape[2] % 32 == padded.shape[3] % 32 == 0


def test_no_padding_where_the_size_fits(draw):
    x = draw(1, 2, 32, 64)
    assert pad_to_stride(x) is x


def test_padding_does_not_move_the_picture(small_model):
    """An image whose mirrored border is already there gives the logits of the larger one, cropped."""
    model, (rgb, thermal) = small_model().eval(), images((40, 64))
    whole = [F.pad(x.float(), (0, 0, 0, 24), mode="reflect") for x in (rgb, thermal)]
    with torch.no_grad():
        torch.testing.assert_close(model(rgb, thermal).logits, model(*whole).logits[..., :40, :])


# --- inputs ------------------------------------------------------------------------------------------------------


def test_integers_and_floats_agree(small_model):
    model, (rgb, thermal) = small_model().eval(), images()
    with torch.no_grad():
        assert torch.equal(model(rgb, thermal).logits, model(rgb.float(), thermal.float()).logits)


def test_inputs_are_normalised_by_the_given_statistics(small_model):
    statistics = {"rgb_mean": [0.1, 0.2, 0.3], "rgb_std": [0.5, 0.25, 1.0], "thermal_mean": 0.4, "thermal_std": 0.5}
    model, (rgb, thermal) = small_model(normalize=statistics), images()
    expected = (rgb / 255 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.25, 1]).view(3, 1, 1)
    torch.testing.assert_close(model.rgb_norm(rgb), expected)
    torch.testing.assert_close(model.thermal_norm(thermal), (thermal / 255 - 0.4) / 0.5)


@pytest.mark.parametrize(
    ("rgb", "thermal"),
    [
        ((1, 1, 32, 32), (1, 1, 32, 32)),
        ((1, 3, 32, 32), (1, 3, 32, 32)),
        ((1, 4, 32, 32), (1, 1, 32, 32)),
        ((3, 32, 32), (1, 32, 32)),
        ((1, 3, 32, 32), (1, 1, 32, 64)),
        ((2, 3, 32, 32), (1, 1, 32, 32)),
    ],
    ids=str,
)
def test_inputs_that_do_not_fit(small_model, rgb, thermal):
    with pytest.raises(ValueError, match="got .*" + str(rgb).replace("(", r"\(").replace(")", r"\)")):
        small_model()(torch.zeros(rgb), torch.zeros(thermal))


# --- behaviour ---------------------------------------------------------------------------------------------------


def test_auxiliary_heads_answer_in_training_only(small_model):
    model = small_model()
    output = model.train()(*images((60, 97), batch=2))
    assert [tuple(x.shape) for x in output.auxiliary] == [(2, 5, 15, 25)] * 2
    assert output.logits.shape == (2, 5, 60, 97)
    assert model.eval()(*images((60, 97))).auxiliary == ()


def test_every_parameter_gets_a_gradient(small_model):
    model = small_model(seed=3).train()  # of the two units behind a ReLU in CMF both may be silent at first
    output = model(*images(batch=4))  # stochastic depth leaves out no branch of all four
    label = torch.randint(5, (4, 64, 96), generator=torch.Generator().manual_seed(1))
    loss = F.cross_entropy(output.logits, label) + sum(F.cross_entropy(x, label[:, ::4, ::4]) for x in output.auxiliary)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_padding_takes_no_share_of_the_mask(small_model):
    """The right half of the first image is black in both modalities; the second shows something everywhere."""
    model, ranked = (
        small_model(interaction={"type": INTERACTION, "divergence": {"mode": "topk", "padding": padding}}).eval()
        for padding in ("left_out", "ranked")
    )
    rgb, thermal = images((64, 96), batch=2)
    rgb[0, :, :, 64:], thermal[0, :, :, 64:] = 0, 0
    with torch.no_grad():
        masks = [where.mask() for where in model(rgb, thermal).divergence]
        other = [where.mask() for where in ranked(rgb, thermal).divergence]
    for stage, mask_BHW in enumerate(masks):
        seen = 64 // (4 << stage)
        height, width = mask_BHW.shape[1:]
        assert not mask_BHW[0, :, seen:].any() and mask_BHW[0].sum() == math.ceil(0.5 * seen * height)
        assert torch.equal(mask_BHW[1], other[stage][1]) or stage > 0  # later stages see other features
        assert mask_BHW[1].sum() == math.ceil(0.5 * width * height)


def test_twins_start_from_the_same_weights(small_model):
    """Thermal gives the features that RGB gives for the same image three times; nothing else changes."""
    twins, apart = small_model(twin_start=True).eval(), small_model().eval()
    grey = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)).permute(0, 2, 3, 1)
    with torch.no_grad():
        maps = [
            twins.rgb_backbone.forward_stage(1, grey.expand(-1, -1, -1, 3)),
            twins.thermal_backbone.forward_stage(1, grey),
        ]
    torch.testing.assert_close(*maps, rtol=1e-4, atol=1e-4)
    other = apart.state_dict()
    changed = {name.split(".")[0] for name, value in twins.state_dict().items() if not torch.equal(value, other[name])}
    assert changed == {"thermal_backbone"}


def test_twins_of_other_depths_share_what_they_have(small_model, monkeypatch):
    monkeypatch.setitem(VARIANTS, "b1", (VARIANTS["b0"][0], (1, 2, 1, 1)))
    model = small_model(rgb_backbone="b1", thermal_backbone="b0", twin_start=True)
    rgb, thermal = model.rgb_backbone.state_dict(), model.thermal_backbone.state_dict()
    assert torch.equal(rgb["patch_embed2.proj.weight"], thermal["patch_embed2.proj.weight"])
    assert thermal["patch_embed1.proj.weight"].shape[1] == 1


def test_evaluation_is_deterministic(small_model):
    model = small_model().eval()
    with torch.no_grad():
        assert torch.equal(model(*images()).logits, model(*images()).logits)


def test_building_is_seeded(small_model):
    one, two, other = (small_model(seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert not torch.equal(one["decoder.head.classifier.weight"], other["decoder.head.classifier.weight"])


def test_an_image_does_not_depend_on_its_batch(small_model):
    model, (rgb, thermal) = small_model().eval(), images(batch=3)
    with torch.no_grad():
        together = model(rgb, thermal).logits
        for index in range(3):
            alone = model(rgb[index : index + 1], thermal[index : index + 1]).logits[0]
            torch.testing.assert_close(alone, together[index], rtol=1e-3, atol=1e-4)


def test_streams_are_not_interchangeable_and_both_matter(small_model):
    model, (rgb, thermal) = small_model().eval(), images()
    with torch.no_grad():
        logits = model(rgb, thermal).logits
        assert (model(rgb, 255 - thermal).logits - logits).abs().max() > 1e-4
        assert (model(255 - rgb, thermal).logits - logits).abs().max() > 1e-4
    ids = {id(p) for p in model.rgb_backbone.parameters()}
    assert not ids & {id(p) for p in model.thermal_backbone.parameters()}


def test_without_interaction_the_streams_stay_apart(small_model):
    model, (rgb, thermal) = small_model(interaction=None).train(), images(batch=2)
    rgb_head, thermal_head = model(rgb.float().requires_grad_(), thermal.float()).auxiliary
    touched = torch.autograd.grad(rgb_head.sum(), list(model.thermal_backbone.parameters()), allow_unused=True)
    assert all(grad is None for grad in touched) and thermal_head.requires_grad
    assert model(rgb, thermal).divergence == ()


def test_interaction_feeds_the_next_stage_of_both_streams(small_model):
    model = small_model().train()
    rgb_head, _ = model(*images(batch=2)).auxiliary
    (grad,) = torch.autograd.grad(rgb_head.sum(), model.thermal_backbone.block1[0].mlp.fc1.weight)
    assert grad.any()


@pytest.mark.parametrize(("rgb", "thermal"), [("b2", "b0"), ("b0", "b1")])
def test_backbones_of_unequal_widths(small_model, rgb, thermal):
    with pytest.raises(ConfigError, match="equal widths"):
        small_model(rgb_backbone=rgb, thermal_backbone=thermal)


ABLATIONS = {
    "no interaction": {"interaction": None},
    "top-k mask": {"interaction": {"type": INTERACTION, "divergence": {"mode": "topk"}}},
    "value": {"interaction": {"type": INTERACTION, "write_back": "value"}},
    "no mask": {"interaction": {"type": INTERACTION, "divergence": {"mode": "none"}}},
    "no attention": {"interaction": {"type": INTERACTION, "local_attention": None}},
    "attention at some stages": {"interaction": {"type": INTERACTION, "local_attention": {"stages": [1, 3]}}},
    "positive keys": {"interaction": {"type": INTERACTION, "local_attention": {"negate_keys": False}}},
    "no channel Mamba": {"interaction": {"type": INTERACTION, "channel_mamba": None}},
    "one direction": {"interaction": {"type": INTERACTION, "channel_mamba": {"bidirectional": False}}},
    "neither": {"interaction": {"type": INTERACTION, "local_attention": None, "channel_mamba": None}},
    "add": {"fusion": "AddFusion"},
    "concat": {"fusion": "ConcatFusion"},
    "all-MLP decoder": {"decoder": "SegFormerDecoder"},
    "static linear": {"decoder": {"type": DECODER, "dynamic_stages": []}},
    "no frequency": {"decoder": {"type": DECODER, "frequency_stages": []}},
    "frequency everywhere": {"decoder": {"type": DECODER, "frequency_stages": [1, 2, 3]}},
    "neither dynamic": {"decoder": {"type": DECODER, "dynamic_stages": [], "frequency_stages": []}},
    "no high-pass": {"decoder": {"type": DECODER, "highpass_cutoff": 0}},
    "no auxiliary heads": {"auxiliary_heads": False},
}


@pytest.fixture(scope="module")
def full(small_model, shaken) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Weights of the whole network, away from their small initial values, and its logits."""
    model = shaken(small_model(), std=0.03).eval()
    with torch.no_grad():
        return model.state_dict(), model(*images((32, 64))).logits


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablation(small_model, full, name):
    weights, logits = full
    model = small_model(**ABLATIONS[name]).eval()
    own = model.state_dict()
    model.load_state_dict({k: v for k, v in weights.items() if k in own and v.shape == own[k].shape}, strict=False)
    with torch.no_grad():
        difference = (model(*images((32, 64))).logits - logits).abs().max()
    if name == "no auxiliary heads":
        assert difference < 1e-5
    else:
        assert difference > 1e-4, "the switch changes nothing"

    output = model.train()(*images((32, 64), batch=2))
    assert output.logits.shape == (2, 5, 32, 64) and output.logits.isfinite().all()
    assert len(output.auxiliary) == (0 if name == "no auxiliary heads" else 2)
    (output.logits.sum() + sum(x.sum() for x in output.auxiliary)).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None], "built and never used"


# --- precision and compilation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_bfloat16_autocast_is_finite(small_model, training):
    model = small_model().train(training)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(*images(batch=2))
    assert output.logits.isfinite().all()
    output.logits.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_bfloat16_autocast_stays_near_float32(small_model):
    """On a given selection; a rounded divergence may select another position, which is no error."""
    model = small_model(interaction={"type": INTERACTION, "divergence": {"mode": "none"}}).eval()
    with torch.no_grad():
        expected = model(*images()).logits
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = model(*images()).logits.float()
    assert (got - expected).norm() < 0.1 * expected.norm()


@pytest.mark.slow  # most of a minute of tracing; exporting, which is quicker, needs one graph too
def test_compiles_as_one_graph(small_model):
    model = small_model().eval()
    with torch.no_grad():
        expected = model(*images()).logits
        got = torch.compile(model, fullgraph=True, backend="aot_eager")(*images()).logits
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
