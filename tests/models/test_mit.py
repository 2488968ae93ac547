from __future__ import annotations

import pytest
import timm.layers
import torch
from torch import nn

from mdg.models.backbones.mit import VARIANTS, MixTransformer
from mdg.models.layers import DropPath
from mdg.options.models import MixTransformerOptions
from mdg.registry import BACKBONES

DEPTHS = {"b0": (2, 2, 2, 2), "b2": (3, 4, 6, 3)}
WIDTHS = {"b0": (32, 64, 160, 256), "b2": (64, 128, 320, 512)}


def public_names(depths: tuple[int, ...]) -> set[str]:
    """Tensors of the published SegFormer encoders, without the classifier."""
    modules = []
    for stage, depth in enumerate(depths, start=1):
        modules += [f"patch_embed{stage}.proj", f"patch_embed{stage}.norm", f"norm{stage}"]
        parts = ["norm1", "attn.q", "attn.kv", "attn.proj", "norm2", "mlp.fc1", "mlp.dwconv.dwconv", "mlp.fc2"]
        parts += ["attn.sr", "attn.norm"] if stage < 4 else []
        modules += [f"block{stage}.{index}.{part}" for index in range(depth) for part in parts]
    return {f"{module}.{tensor}" for module in modules for tensor in ("weight", "bias")}


@pytest.mark.parametrize("variant", ["b0", "b2"])
def test_tensor_names_are_the_public_ones(variant):
    assert set(BACKBONES.create(variant, in_channels=3).state_dict()) == public_names(DEPTHS[variant])


@pytest.mark.parametrize("variant", ["b0", "b2"])
def test_tensor_shapes(variant):
    shapes = {name: tuple(value.shape) for name, value in BACKBONES.create(variant, in_channels=3).state_dict().items()}
    one, two, three, four = WIDTHS[variant]
    assert shapes["patch_embed1.proj.weight"] == (one, 3, 7, 7)
    assert shapes["patch_embed3.proj.weight"] == (three, two, 3, 3)
    for stage, width, ratio in ((1, one, 8), (2, two, 4), (3, three, 2)):
        assert shapes[f"block{stage}.0.attn.sr.weight"] == (width, width, ratio, ratio)
    assert shapes["block4.1.attn.kv.weight"] == (2 * four, four)
    assert shapes["block4.0.mlp.fc1.weight"] == (4 * four, four)
    assert shapes["block4.0.mlp.dwconv.dwconv.weight"] == (4 * four, 1, 3, 3)


def test_builds_without_memory():
    with torch.device("meta"):
        assert all(parameter.is_meta for parameter in BACKBONES.create("b0", in_channels=3).parameters())


def test_variants_of_the_paper():
    assert {name: depths for name, (_, depths) in VARIANTS.items()} == {
        "b0": (2, 2, 2, 2),
        "b1": (2, 2, 2, 2),
        "b2": (3, 4, 6, 3),
        "b3": (3, 4, 18, 3),
        "b4": (3, 8, 27, 3),
        "b5": (3, 6, 40, 3),
    }
    assert {widths for widths, _ in VARIANTS.values()} == {WIDTHS["b0"], WIDTHS["b2"]}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_maps_of_the_four_stages(draw, size, channels):
    maps = BACKBONES.create("b0", in_channels=channels).eval()(draw(2, channels, *size))
    expected = [(2, size[0] // s, size[1] // s, c) for s, c in zip((4, 8, 16, 32), WIDTHS["b0"], strict=True)]
    assert [tuple(x.shape) for x in maps] == expected


def test_stages_stepped_from_outside_equal_forward(draw):
    encoder, image = BACKBONES.create("b0", in_channels=3).eval(), draw(1, 3, 64, 64)
    x = image.permute(0, 2, 3, 1)
    for stage, expected in enumerate(encoder(image), start=1):
        x = encoder.forward_stage(stage, x)
        torch.testing.assert_close(x, expected)


def test_layer_norm_epsilons():
    """1e-6 in blocks and after stages; the released code leaves those of patch embed and reduction at 1e-5."""
    norms = {
        name: m.eps for name, m in BACKBONES.create("b0", in_channels=3).named_modules() if isinstance(m, nn.LayerNorm)
    }
    default = {name for name in norms if name.startswith("patch_embed") or name.endswith("attn.norm")}
    assert len(default) == 4 + 6
    assert {norms[name] for name in default} == {1e-5}
    assert {eps for name, eps in norms.items() if name not in default} == {1e-6}


@pytest.mark.parametrize(("variant", "rate"), [("b0", 0.1), ("b0", 0.35), ("b2", 0.1)])
def test_drop_path_rises_linearly_over_the_blocks(variant, rate):
    encoder = MixTransformer(MixTransformerOptions(variant=variant, drop_path_rate=rate), in_channels=3)
    blocks = [block for stage in range(1, 5) for block in getattr(encoder, f"block{stage}")]
    assert [block.drop_path.p for block in blocks] == pytest.approx(
        [rate * index / (len(blocks) - 1) for index in range(len(blocks))]
    )


def test_stochastic_depth_is_that_of_timm(draw):
    x = draw(64, 3, 2, 4)
    for p in (0.0, 0.3, 0.9):
        ours, theirs = DropPath(p), timm.layers.DropPath(p)
        torch.manual_seed(0)
        got = ours(x)
        torch.manual_seed(0)
        assert torch.equal(got, theirs(x))
        assert ours.eval()(x) is x
    dropped = (got == 0).flatten(1).all(dim=1)
    assert 0 < dropped.sum() < 64
    torch.testing.assert_close(got[~dropped], (x / (1 - 0.9))[~dropped])


def test_one_channel_stem_equals_three_times_the_same_image(draw, shaken):
    rgb, thermal = (
        shaken(BACKBONES.create("b0", in_channels=3).eval()),
        BACKBONES.create("b0", in_channels=1).eval(),
    )
    state = rgb.state_dict()
    state["patch_embed1.proj.weight"] = state["patch_embed1.proj.weight"].sum(1, keepdim=True)
    thermal.load_state_dict(state)
    image = draw(1, 1, 64, 64)
    for got, expected in zip(thermal(image), rgb(image.expand(-1, 3, -1, -1)), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_attention_equals_softmax_by_hand(draw, shaken):
    attention = shaken(BACKBONES.create("b0", in_channels=3).double().block2[0].attn)  # 2 heads, reduction 4
    x = draw(1, 8, 8, 64, dtype=torch.float64)
    reduced = attention.sr(x.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
    q, (k, v) = attention.q(x).flatten(1, 2), attention.kv(attention.norm(reduced)).split(64, dim=-1)
    assert k.shape == (1, 4, 64)
    heads = []
    for head in (slice(0, 32), slice(32, 64)):
        weight = (q[..., head] @ k[..., head].transpose(1, 2) / 32**0.5).softmax(-1)
        heads.append(weight @ v[..., head])
    expected = attention.proj(torch.cat(heads, -1)).view(1, 8, 8, 64)
    torch.testing.assert_close(attention(x), expected)


def test_initial_scale_of_the_maps(draw):
    torch.manual_seed(0)
    for x in BACKBONES.create("b0", in_channels=3).eval()(draw(1, 3, 64, 64)):
        assert x.isfinite().all() and 0.5 < x.std() < 2
