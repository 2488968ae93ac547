"""Encoders of TriKD: TinyViT with a last block that sees the whole map, a plain ViT, and the scores of both."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from mdg.errors import ConfigError, WeightsError
from mdg.models import build_model
from mdg.models.backbones.attention_scores import last_attention
from mdg.models.weights import load_encoder
from mdg.registry import BACKBONES

timm = pytest.importorskip("timm", reason="timm is not installed")
TINY, VIT = "tiny_vit_5m_224", "vit_tiny_patch16_224"  # small ones of their kinds
STUDENTS = {  # widths, heads of the last stage
    "tiny_vit_11m_224": ((64, 128, 256, 448), 14),
    "tiny_vit_21m_512": ((96, 192, 384, 576), 18),
}


def tiny(name: str = TINY, channels: int = 3, **options):
    torch.manual_seed(0)
    return BACKBONES.create({"type": "Timm", "name": name, **options}, in_channels=channels).eval()


def vit(channels: int = 3, **options):
    torch.manual_seed(0)
    values = {"type": "PlainViT", "name": VIT, "blocks": [1, 2, 3, 4], "width": 8, **options}
    return BACKBONES.create(values, in_channels=channels).eval()


def stepped(encoder, image: torch.Tensor) -> list[torch.Tensor]:
    maps, x = [], image.permute(0, 2, 3, 1)
    for stage in (1, 2, 3, 4):
        x = encoder.forward_stage(stage, x)
        maps.append(x)
    return maps


# --- TinyViT ------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (70, 101)], ids=str)
def test_stepped_maps_of_tiny_vit_are_those_of_timm(draw, size):
    """At sizes whose maps do not fill their windows, too: 14 at 1/16, 7 at 1/32."""
    encoder = tiny()
    torch.manual_seed(0)
    whole = timm.create_model(TINY, features_only=True, drop_path_rate=0.0).eval()
    whole.load_state_dict(
        {f"{path}.{own}".replace("stages.", "stages_"): value
         for path, part in zip(encoder.paths, encoder.body, strict=True) for own, value in part.state_dict().items()}
    )  # fmt: skip
    image = draw(1, 3, *size)
    for own, other in zip(stepped(encoder, image), whole(image), strict=True):
        torch.testing.assert_close(own, other.permute(0, 2, 3, 1), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_last_block_alone_is_another_one_and_equals_the_windowed_one_where_the_window_is_the_map(draw):
    """A map of 7x7 is one window; its bias is zero at the start. In a larger map positions see beyond their window."""
    windowed, whole = tiny(), tiny(global_last_block=True)
    whole.load_state_dict(windowed.state_dict(), strict=False)
    lost = set(windowed.state_dict()) - set(whole.state_dict())
    assert lost == {"body.4.blocks.1.attn.attention_biases"}
    image = draw(1, 3, 224, 224)
    for one, other in zip(stepped(windowed, image), stepped(whole, image), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    x = draw(1, 9, 9, windowed.widths[-1])
    changed = x.clone()
    changed[0, 8, 8] += 1
    reach = [
        (encoder.body[-1].blocks[-1](changed) - encoder.body[-1].blocks[-1](x))[0, 0, 0].abs().max()
        for encoder in (windowed, whole)
    ]
    assert reach[0] == 0 < reach[1]


@pytest.mark.parametrize(
    "name",
    [
        "tiny_vit_11m_224",
        pytest.param("tiny_vit_21m_512", marks=pytest.mark.slow),  # indices of windows of 32x32 are built in Python
        "resnet101d",
    ],
)
def test_encoders_of_the_published_method_have_their_widths(name):
    with torch.device("meta"):
        encoder = tiny(name, global_last_block=name in STUDENTS)
    if name in STUDENTS:
        widths, heads = STUDENTS[name]
        assert encoder.widths == widths and encoder.body[-1].blocks[-1].attn.num_heads == heads
    else:
        assert encoder.widths == (256, 512, 1024, 2048)


@pytest.mark.parametrize(
    "name",
    [
        "tiny_vit_11m_224",
        pytest.param("tiny_vit_21m_512", marks=pytest.mark.slow),  # as the one of 11 M
        pytest.param("resnet101d", marks=pytest.mark.slow),  # as the ResNet of test_timm_encoder.py
    ],
)
def test_a_student_takes_a_step(draw, name):
    torch.manual_seed(0)
    backbone = {"type": "Timm", "name": name, "global_last_block": name in STUDENTS}
    model = build_model({"type": "SingleStream", "backbone": backbone, "decoder": {"type": "DualFrequencyDecoder"}}, 19)
    logits = model.train()(torch.randint(0, 256, (2, 3, 64, 70)), None).logits
    assert logits.shape == (2, 19, 64, 70)
    F.cross_entropy(logits, torch.randint(19, (2, 64, 70))).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_only_tiny_vit_has_that_block():
    with pytest.raises(ConfigError, match="timm's 'resnet18' is no TinyViT"):
        tiny("resnet18", global_last_block=True)


@torch.no_grad()
def test_weights_of_timm_for_a_tiny_vit_with_a_global_block(tmp_path, caplog):
    torch.manual_seed(5)
    net = timm.create_model(TINY)
    torch.save(net.state_dict(), tmp_path / "w.pth")
    for whole in (False, True):
        encoder = tiny(global_last_block=whole)
        report = load_encoder(encoder, tmp_path / "w.pth", "rgb")
        assert not report.missing and not report.unexpected
        assert not [record for record in caplog.records if record.levelname == "WARNING"]
        assert torch.equal(encoder.body[-1].blocks[-1].attn.qkv.weight, net.stages[-1].blocks[-1].attn.qkv.weight)


# --- plain ViT ----------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("size", [(224, 224), (64, 96), (32, 160)], ids=str)
def test_maps_of_blocks_are_those_of_timm_without_a_class_token(draw, size):
    encoder = vit(blocks=[3, 6, 9, 12])
    other = timm.create_model(
        VIT, class_token=False, global_pool="avg", dynamic_img_size=True, num_classes=0, fc_norm=False
    ).eval()
    own = encoder.state_dict()
    names = {name: name.replace("patch_embed", "tokens.patch_embed") for name in other.state_dict()}
    names["pos_embed"] = "tokens.positions"
    other.load_state_dict({name: own.get(names[name], value) for name, value in other.state_dict().items()})
    image = draw(1, 3, *size)
    expected = other.forward_intermediates(image, indices=[2, 5, 8, 11], intermediates_only=True)
    for one, two in zip(encoder.block_maps(image), expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_neck_makes_four_sizes(draw):
    encoder = vit()
    assert encoder.widths == (8,) * 4
    maps = encoder(draw(2, 3, 64, 96))
    assert [tuple(x.shape) for x in maps] == [(2, 16, 24, 8), (2, 8, 12, 8), (2, 4, 6, 8), (2, 2, 3, 8)]
    neck, x = encoder.neck[3], encoder.block_maps(draw(2, 3, 64, 96))[3]
    half = F.interpolate(neck.reduce(x), scale_factor=0.5, mode="bilinear", align_corners=False)
    torch.testing.assert_close(maps[3], neck.smooth(half).permute(0, 2, 3, 1))


def test_the_published_plain_vit():
    with torch.device("meta"):
        encoder = BACKBONES.create("PlainViT", in_channels=3)
    assert encoder.name == "deit_base_distilled_patch16_384" and encoder.widths == (448,) * 4
    assert encoder.taps == (2, 5, 8, 11) and tuple(encoder.tokens.positions.shape) == (1, 24 * 24, 768)


def test_plain_vit_as_the_encoder_of_a_network(draw):
    """At an odd size; every parameter learns, and layers hold each once."""
    torch.manual_seed(0)
    backbone = {"type": "PlainViT", "name": VIT, "blocks": [1, 2, 3, 4], "width": 8}
    model = build_model({"type": "SingleStream", "backbone": backbone}, 3).train()
    logits = model(torch.randint(0, 256, (2, 3, 40, 67)), None).logits
    assert logits.shape == (2, 3, 40, 67)
    F.cross_entropy(logits, torch.randint(3, (2, 40, 67))).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    encoder = model.backbone
    below = [
        f"{part}.{own}"
        for layer in encoder.layers()
        for part in layer
        for own, _ in encoder.get_submodule(part).named_parameters()
    ]
    assert sorted(below) == sorted(name for name, _ in encoder.named_parameters())


@torch.no_grad()
@pytest.mark.parametrize("channels", [3, 1])
def test_weights_of_a_distilled_classifier(draw, tmp_path, channels):
    """Positions of class and distillation tokens are dropped, the neck stays as it is."""
    name = "deit_tiny_distilled_patch16_224"
    torch.manual_seed(5)
    net = timm.create_model(name)
    torch.save({f"module.{key}": value for key, value in net.state_dict().items()}, tmp_path / "w.pth")
    encoder = vit(channels, name=name)
    neck = encoder.neck[0].smooth.weight.clone()
    report = load_encoder(encoder, tmp_path / "w.pth", "rgb")
    assert not report.missing and not report.unexpected and torch.equal(neck, encoder.neck[0].smooth.weight)
    assert torch.equal(encoder.tokens.positions, net.pos_embed[:, 2:])
    stem = net.patch_embed.proj.weight
    expected = stem if channels == 3 else stem.sum(1, keepdim=True)
    assert torch.equal(encoder.tokens.patch_embed.proj.weight, expected)


def test_weights_of_another_network(tmp_path):
    torch.save(timm.create_model("vit_tiny_patch16_384").state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"1 tensors do not fit the rgb encoder: tokens.positions"):
        load_encoder(vit(), tmp_path / "w.pth", "rgb")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "vit_tiny_patch16_22"}, "has no network 'vit_tiny_patch16_22'; near: vit_tiny"),
        ({"name": "resnet18"}, "'resnet18' is not a plain vision transformer with patches of 16 pixels"),
        ({"name": "vit_small_patch32_224"}, "'vit_small_patch32_224' is not a plain vision transformer"),
        ({"blocks": [3, 6, 9, 13]}, r"got \[3, 6, 9, 13\], and timm's 'vit_tiny_patch16_224' has 12 blocks"),
    ],
)
def test_what_is_no_plain_vit(options, message):
    with pytest.raises(ConfigError, match=message):
        vit(**options)


def test_blocks_have_an_order():
    with pytest.raises(ValidationError, match="expected four blocks in their order"):
        vit(blocks=[3, 3, 6, 9])


def test_a_plain_vit_cannot_stand_in_two_streams():
    parts = {f"{stream}_backbone": {"type": "PlainViT", "name": VIT} for stream in ("rgb", "thermal")}
    with pytest.raises(ConfigError, match="gives all its maps at once, so nothing can be exchanged between its stages"):
        build_model({"type": "MDG", **parts}, 3)


# --- scores -------------------------------------------------------------------------------------------------------


def softmax_inside(attention, monkeypatch) -> list[torch.Tensor]:
    """The attention as the block itself computes it, without its fused kernel."""
    seen, softmax = [], torch.Tensor.softmax
    attention.fused_attn = False
    monkeypatch.setattr(torch.Tensor, "softmax", lambda x, dim: seen.append(softmax(x, dim)) or seen[-1])
    return seen


@torch.no_grad()
def test_scores_of_a_plain_vit_are_those_inside_the_block(draw, monkeypatch):
    encoder = vit()
    seen = softmax_inside(encoder.blocks[-1].attn, monkeypatch)
    with last_attention(encoder) as scores:
        encoder(draw(2, 3, 64, 96))
    assert scores.logits_BhNN.shape == (2, 3, 24, 24)
    torch.testing.assert_close(torch.softmax(scores.logits_BhNN, -1), seen[-1], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_scores_of_windows_are_those_inside_the_block(draw, shaken, monkeypatch):
    """With their bias; 288 pixels are 9 positions at 1/32, which are four windows of 7."""
    encoder = shaken(tiny()).eval()
    seen = softmax_inside(encoder.body[-1].blocks[-1].attn, monkeypatch)
    with last_attention(encoder) as scores:
        stepped(encoder, draw(1, 3, 288, 288))
    assert scores.logits_BhNN.shape == (4, 10, 49, 49)
    torch.testing.assert_close(torch.softmax(scores.logits_BhNN, -1), seen[-1], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_scores_of_the_whole_map_weigh_the_values_of_the_block(draw, shaken):
    encoder = shaken(tiny(global_last_block=True)).eval()
    attention, results = encoder.body[-1].blocks[-1].attn, []
    attention.proj.register_forward_pre_hook(lambda _, given: results.append(given[0]))
    values = []
    attention.qkv.register_forward_hook(lambda _, __, out: values.append(out))
    with last_attention(encoder) as scores:
        stepped(encoder, draw(2, 3, 64, 96))
    assert scores.logits_BhNN.shape == (2, 10, 6, 6) and scores.bias_hNN is None
    v_BhNd = values[-1].view(2, 6, 10, -1).transpose(1, 2)[..., 2 * attention.key_dim :]
    weighed = torch.softmax(scores.logits_BhNN, -1) @ v_BhNd
    torch.testing.assert_close(weighed.transpose(1, 2).flatten(2), results[-1], rtol=1e-4, atol=1e-5)


def test_scores_have_a_gradient_and_the_hook_leaves(draw):
    encoder = tiny(global_last_block=True)
    with last_attention(encoder) as scores, torch.autocast("cpu", torch.bfloat16):
        stepped(encoder, draw(1, 3, 64, 96))
    assert scores.logits_BhNN.dtype == torch.float32
    scores.logits_BhNN.square().sum().backward()
    assert encoder.body[0].conv1.conv.weight.grad.any()
    before = scores.q_BhNd
    stepped(encoder, draw(1, 3, 64, 64))
    assert scores.q_BhNd is before


@pytest.mark.parametrize("backbone", ["b0", {"type": "Timm", "name": "resnet18"}])
def test_other_encoders_have_no_scores(backbone):
    encoder = BACKBONES.create(backbone, in_channels=3)
    with pytest.raises(ConfigError, match="its last block has no attention"), last_attention(encoder):
        pass
