"""The rivals: sizes as published, formulas against another way to write them, one forward signature for all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mdg.benchmark.macs import count_macs
from mdg.config import load_config
from mdg.models import build_model
from mdg.registry import BACKBONES, DECODERS, FUSIONS, INTERACTIONS

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "mfnet" / "baselines"


def small(name: str) -> nn.Module:
    """A configuration of a rival, on the smallest encoders."""
    model = load_config(FOLDER / f"{name}.yaml").model.model_dump(mode="json")
    for key in ("rgb_backbone", "thermal_backbone", "backbone"):
        if key in model:
            model[key]["variant"] = "b0"
    if model["decoder"]["type"] == "UperNetDecoder":
        model["decoder"]["embed_dim"] = 16
    torch.manual_seed(0)
    return build_model(model, 5, load_pretrained=False)


@pytest.fixture
def quick_init(monkeypatch):
    """Sizes do not depend on the numbers."""
    for name in ("trunc_normal_", "normal_", "kaiming_uniform_", "uniform_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *args, **options: tensor)


# Millions of parameters as the papers print them, with as many classes as they count with.
@pytest.mark.parametrize(
    ("name", "classes", "millions"), [("cmx_b2", 40, 66.6), ("cmx_b0", 40, 11.2), ("cmnext_b2", 25, 58.7)]
)
def test_sizes_are_those_of_the_papers(quick_init, name, classes, millions):
    model = build_model(load_config(FOLDER / f"{name}.yaml").model, classes, load_pretrained=False)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)


# CMX: 67.6 at 480x640, of layers only (products of queries and keys are none); CMNeXt: 62.94 at 512x512, with them.
@pytest.mark.parametrize(
    ("name", "size", "products", "giga"),
    [("cmx_b2", (480, 640), False, 67.6), ("cmnext_b2", (512, 512), True, 62.94)],
)
def test_macs_are_those_of_the_papers(quick_init, name, size, products, giga):
    """As the public code computes: a second image of three channels, and a head that embeds every map before it
    concatenates them, where ours multiplies its matrices first (the same numbers)."""
    model = build_model(load_config(FOLDER / f"{name}.yaml").model, 9, load_pretrained=False).eval()
    images = [torch.zeros(1, channels, *size, dtype=torch.uint8) for channels in (3, 1)]
    counted = count_macs(model, *images)
    maps = [size[0] * size[1] // 16 // 4**stage for stage in range(4)]
    widths, width = (64, 128, 320, 512), 512
    head = sum(n * w * width for n, w in zip(maps, widths, strict=True)) + maps[0] * (4 * width + 9) * width
    stem = maps[0] * 7 * 7 * 2 * 64
    shapes = [call.inputs for call in counted.calls if call.operator == "attention"]
    attention = sum(2 * q[0] * q[1] * k[1] * q[2] for q, k, *_ in shapes)
    macs = counted.by_module[""] - counted.by_module["decoder"] + head + stem - (0 if products else attention)
    assert macs / 1e9 == pytest.approx(giga, rel=0.02)


@pytest.mark.parametrize("name", sorted(file.stem for file in FOLDER.glob("*.yaml")))
def test_every_rival_takes_and_gives_the_same(name):
    model = small(name)
    rgb, thermal = torch.randint(0, 256, (2, 3, 50, 70)), torch.randint(0, 256, (2, 1, 50, 70))
    output = model(rgb, thermal)
    assert output.logits.shape == (2, 5, 50, 70) and output.divergence == ()
    (output.logits.square().sum() + sum(x.square().sum() for x in output.auxiliary)).backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not missing
    model.eval()
    with torch.no_grad():
        assert model(rgb, thermal).auxiliary == ()
        with pytest.raises(ValueError, match=r"expected RGB \[B, 3, H, W\]"):
            model(thermal, thermal)


@pytest.mark.parametrize(("name", "blind"), [("rgb_only", 1), ("thermal_only", 0)])
def test_a_network_of_one_modality_does_not_see_the_other(name, blind):
    model = small(name).eval()
    images = [torch.randint(0, 256, (1, channels, 32, 64)) for channels in (3, 1)]
    changed = list(images)
    changed[blind] = 255 - images[blind]
    with torch.no_grad():
        assert torch.equal(model(*images).logits, model(*changed).logits)
        changed[1 - blind] = 255 - images[1 - blind]
        assert not torch.equal(model(*images).logits, model(*changed).logits)


def test_late_fusion_is_the_mean_of_probabilities():
    model = small("late_fusion").eval()
    images = [torch.randint(0, 256, (2, channels, 32, 64)) for channels in (3, 1)]
    with torch.no_grad():
        each = [one(*images).logits.softmax(dim=1) for one in (model.rgb, model.thermal)]
        torch.testing.assert_close(model(*images).logits.softmax(dim=1), (each[0] + each[1]) / 2)
    model.train()
    assert len(model(*images).auxiliary) == 2


def test_rectification_by_its_formula(draw):
    torch.manual_seed(0)
    module = INTERACTIONS.create(
        {"type": "FeatureRectification", "channel_share": 0.3, "spatial_share": 0.6}, stage=1, width=4
    )
    rgb, thermal = draw(2, 3, 5, 4), draw(2, 3, 5, 4, seed=1)
    out = module(rgb, thermal)
    assert out.divergence is None
    for b in range(2):
        both = torch.cat([rgb[b], thermal[b]], -1)
        pooled = torch.cat([both.reshape(-1, 8).mean(0), both.reshape(-1, 8).max(0).values])
        one, two = module.channel_gate[0], module.channel_gate[2]
        channel = torch.sigmoid(F.linear(F.relu(F.linear(pooled, one.weight, one.bias)), two.weight, two.bias))
        for y, x in ((0, 0), (2, 4)):
            one, two = module.spatial_gate[0], module.spatial_gate[2]
            spatial = torch.sigmoid(F.linear(F.relu(F.linear(both[y, x], one.weight, one.bias)), two.weight, two.bias))
            to_rgb, to_thermal = (0.3 * channel[i : i + 4] + 0.6 * spatial[i // 4] for i in (4, 0))
            torch.testing.assert_close(out.rgb_BHWC[b, y, x], rgb[b, y, x] + to_rgb * thermal[b, y, x])
            torch.testing.assert_close(out.thermal_BHWC[b, y, x], thermal[b, y, x] + to_thermal * rgb[b, y, x])


def test_cross_attention_of_the_fusion_by_einsum(draw):
    torch.manual_seed(0)
    attention = FUSIONS.create({"type": "FeatureFusion", "heads": [2, 2, 2, 2]}, stage=1, width=8).attention
    rgb, thermal = draw(2, 6, 8), draw(2, 6, 8, seed=1)
    for got, own, other, layer in zip(
        attention(rgb, thermal), (rgb, thermal), (thermal, rgb), reversed(attention.key_value), strict=True
    ):
        k, v = layer(other).reshape(2, 6, 2, 2, 4).unbind(2)
        context = torch.einsum("bphi,bphj->bhij", k, v).mul(4**-0.5).softmax(dim=2)
        expected = torch.einsum("bphi,bhij->bphj", own.reshape(2, 6, 2, 4), context).reshape(2, 6, 8)
        torch.testing.assert_close(got, expected)


def test_pooling_attention_by_its_formula(draw):
    encoder = BACKBONES.create({"type": "PoolingEncoder", "variant": "b0"}, in_channels=1).eval()
    attention = encoder.blocks[0][0].attn
    x = draw(1, 32, 12, 9)
    y = attention.conv(x)
    total = y.clone()
    for k in (3, 7, 11):  # means over the part of the window that lies inside
        ones = torch.ones(1, 1, k, k)
        inside = F.conv2d(torch.ones(1, 1, 12, 9), ones, padding=k // 2)
        total = total + F.conv2d(y.transpose(0, 1), ones, padding=k // 2).transpose(0, 1) / inside
    torch.testing.assert_close(attention(x), x + x * torch.sigmoid(attention.mix(total)))


def test_upernet_takes_any_size(draw):
    torch.manual_seed(0)
    decoder = DECODERS.create({"type": "UperNetDecoder", "embed_dim": 8}, widths=(4, 8, 8, 16), num_classes=3)
    for height, width in ((8, 16), (24, 40)):  # with a single cell at the deepest stage, and with odd grids
        maps = [draw(1, height >> s, width >> s, c) for s, c in enumerate((4, 8, 8, 16))]
        assert decoder(maps).shape == (1, 3, height, width)


def scan_by_hand(scan, u_LE, step_LE, B_LN, C_LN):
    """``h = exp(dt A) h + dt B u``, ``y = C h + D u``, step by step."""
    A, h, out = -scan.A_log.exp(), torch.zeros_like(scan.A_log), []
    for u, step, B, C in zip(u_LE, step_LE, B_LN, C_LN, strict=True):
        dt = F.softplus(step + scan.dt_proj.bias)
        h = torch.exp(dt[:, None] * A) * h + dt[:, None] * B[None] * u[:, None]
        out.append(h @ C + scan.D * u)
    return torch.stack(out)


def test_scans_over_space_by_hand(draw, shaken):
    torch.manual_seed(0)
    module = shaken(FUSIONS.create({"type": "SpatialMambaFusion", "state": 3}, width=4))
    maps = draw(1, 2, 3, 4), draw(1, 2, 3, 4, seed=1)
    inputs = [u[0] for u in module.cross_in(maps)]
    projected = [scan.project(u) for scan, u in zip(module.cross, inputs, strict=True)]
    crossed = []
    for own, other in ((0, 1), (1, 0)):
        y = scan_by_hand(module.cross[own], inputs[own], *projected[own][:2], projected[other][2])
        crossed.append(maps[own] + module.cross_out[own](module.cross_norm[own](y)).view(1, 2, 3, 4))
    sequence = torch.cat([u[0] for u in module.concat_in(tuple(crossed))])
    forward, backward = module.concat
    y = scan_by_hand(forward, sequence, *forward.project(sequence))
    y = y + scan_by_hand(backward, sequence.flip(0), *(x.flip(0) for x in backward.project(sequence))).flip(0)
    joined = torch.cat([norm(part) for norm, part in zip(module.concat_norm, y.chunk(2), strict=True)], dim=-1)
    expected = crossed[0] + crossed[1] + module.concat_out(joined).view(1, 2, 3, 4)
    torch.testing.assert_close(module(*maps), expected, rtol=1e-4, atol=1e-5)
