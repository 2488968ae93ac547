"""The decoder with frequency selection: the filter by brute force, the selection by hand, what a step needs."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from mdg.models.decoders.dual_frequency import WIDTHS, DualFrequencyDecoder, FrequencySelection, gaussian_lowpass
from mdg.ops.modes import exporting
from mdg.options.models import DualFrequencyDecoderOptions
from mdg.registry import DECODERS

CHANNELS = (8, 12, 16, 20)
SMALL = {"level_widths": (6, 8, 10, 12), "embed_dim": 16}
SIZES = [(8, 8), (9, 7), (6, 11), (1, 5)]


def maps(draw, height: int = 16, width: int = 24, batch: int = 2) -> list[torch.Tensor]:
    """Of sides as an encoder gives them: each half of the one before, rounded up."""
    found = []
    for place, channels in enumerate(CHANNELS):
        found.append(draw(batch, height, width, channels, seed=place))
        height, width = math.ceil(height / 2), math.ceil(width / 2)
    return found


def decoder(**options) -> DualFrequencyDecoder:
    torch.manual_seed(0)
    return DualFrequencyDecoder(
        DualFrequencyDecoderOptions(**{**SMALL, **options}), widths=CHANNELS, num_classes=3
    ).eval()


def waves(n: int) -> torch.Tensor:
    """The matrix of the transform, complex double."""
    steps = torch.arange(n, dtype=torch.float64)
    return torch.exp(-2j * math.pi * steps[:, None] * steps / n)


def brute_force(x_hw: torch.Tensor, band: str, sigma: float) -> torch.Tensor:
    """|inverse transform| of a map whose spectrum, shifted, is multiplied by a Gaussian about H//2, W//2; sums only."""
    H, W = x_hw.shape
    spectrum = torch.roll(waves(H) @ x_hw.to(torch.complex128) @ waves(W), (H // 2, W // 2), (0, 1))
    for u in range(H):
        for v in range(W):
            low = math.exp(-((u - H // 2) ** 2 + (v - W // 2) ** 2) / (2 * sigma**2))
            spectrum[u, v] *= low if band == "low" else 1 - low
    spectrum = torch.roll(spectrum, (-(H // 2), -(W // 2)), (0, 1))
    return (waves(H).conj() @ spectrum @ waves(W).conj() / (H * W)).abs()


@pytest.mark.parametrize("band", ["low", "high"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_filter_by_brute_force(draw, size, band):
    x = draw(2, 3, *size)
    got = FrequencySelection(3, band, 2.0).strength(x)
    expected = torch.stack([torch.stack([brute_force(c, band, 2.0).mean() for c in image]) for image in x])
    assert got.shape == (2, 3, 1, 1) and got.dtype == torch.float32
    torch.testing.assert_close(got[..., 0, 0], expected.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_gaussian_is_centred_on_frequency_zero(size):
    H, W = size
    low = gaussian_lowpass(H, W, 2.0, torch.device("cpu"))
    assert low.shape == (H, W // 2 + 1) and low[0, 0] == 1 and low.argmax() == 0
    for u in range(1, H):  # even: a frequency and its negative alike, of even sides too
        torch.testing.assert_close(low[u], low[H - u])


def test_selection_by_hand():
    """1x2 map: its spectrum is the sum 4 and the difference 2 of (3, 1). With r = 1 in the column of the difference and
    sigma so that the Gaussian is one half there, low = (2 +- 1/2), high = (+-1/2): means 2 and 1/2."""
    x, sigma = torch.tensor([[[[3.0, 1.0]]]]), math.sqrt(1 / (2 * math.log(2)))
    for band, mean in (("low", 2.0), ("high", 0.5)):
        layer = FrequencySelection(1, band, sigma)
        torch.nn.init.constant_(layer.weigh.weight, 2.0)
        torch.testing.assert_close(layer.strength(x).item(), mean)
        torch.testing.assert_close(layer(x), x * (1 + 1 / (1 + math.exp(-2 * mean))))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_without_bounds_low_is_everything_and_high_is_nothing(draw, size):
    x = draw(2, 3, *size)
    torch.testing.assert_close(FrequencySelection(3, "low", 1e9).strength(x), x.abs().mean((2, 3), keepdim=True))
    assert FrequencySelection(3, "high", 1e9).strength(x).abs().max() < 1e-5


def test_which_stage_is_weighed_by_what():
    kinds = [getattr(part, "band", None) for part in decoder().select]
    assert kinds == ["high", "high", "low"]
    assert [getattr(part, "band", None) for part in decoder(low_stages=[1], high_stages=[]).select] == [
        "low", None, None,
    ]  # fmt: skip


@torch.no_grad()
def test_decoder_step_by_step(draw, shaken):
    """Written out once more, with the functions of torch alone."""
    net, inputs = shaken(decoder()).eval(), maps(draw)
    x1, x2, x3, x4 = (x.permute(0, 3, 1, 2) for x in inputs)

    def up(x, like):
        return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)

    pooled = [
        up(F.relu(F.conv2d(F.adaptive_avg_pool2d(x4, n), c.weight, c.bias)), x4)
        for n, c in zip((1, 2, 3, 6), net.pooled, strict=True)
    ]
    p4 = net.deepest(torch.cat([x4, *pooled], 1))
    laterals = []
    for place, x in enumerate((x1, x2, x3)):
        select = net.select[place]
        strength = torch.stack([torch.stack([brute_force(c, select.band, 10.0).mean() for c in im]) for im in x])
        a = torch.sigmoid(strength.float() @ select.weigh.weight[:, :, 0, 0].T)[:, :, None, None]
        laterals.append(F.conv2d(x + a * x, net.lateral[place].weight))
    p3 = laterals[2] + up(net.down[2](p4), x3)
    p2 = laterals[1] + up(net.down[1](p3), x2)
    p1 = laterals[0] + up(net.down[0](p2), x1)
    levels = [net.smooth[0](p1), up(net.smooth[1](p2), x1), up(net.smooth[2](p3), x1), up(p4, x1)]
    expected = net.classifier(net.fuse(torch.cat(levels, 1)))
    torch.testing.assert_close(net(inputs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 24), (15, 21), (17, 9)], ids=str)
def test_any_size_and_finite_gradients(draw, size):
    net, inputs = decoder().train(), [x.requires_grad_() for x in maps(draw, *size)]
    inputs[1].data[0] = 0  # a map of nothing, where a magnitude has a corner
    logits = net(inputs)
    assert logits.shape == (2, 3, *size)
    logits.square().sum().backward()
    for name, value in [*net.named_parameters(), *((f"map {s}", x) for s, x in enumerate(inputs))]:
        assert value.grad is not None and value.grad.isfinite().all() and value.grad.any(), name


@torch.no_grad()
def test_spectra_stay_in_float32_under_autocast(draw, monkeypatch):
    net, seen = decoder(), []
    transform = torch.fft.rfft2
    monkeypatch.setattr(torch.fft, "rfft2", lambda x, **given: seen.append(x.dtype) or transform(x, **given))
    inputs, plain = maps(draw), net(maps(draw))
    with torch.autocast("cpu", torch.bfloat16):
        logits = net([x.bfloat16() for x in inputs])
    assert logits.dtype == torch.bfloat16 and seen[-3:] == [torch.float32] * 3
    torch.testing.assert_close(logits.float(), plain, rtol=0.1, atol=0.02)


@torch.no_grad()
def test_without_an_fft_where_another_runtime_has_none(draw):
    net, inputs = decoder(), maps(draw, 15, 22)
    with exporting():
        got = net(inputs)
    torch.testing.assert_close(got, net(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["tiny", "cnn", "vit"])
def test_parameters_by_hand(kind):
    widths = {"tiny": (64, 128, 256, 448), "cnn": (256, 512, 1024, 2048), "vit": (448,) * 4}[kind]
    with torch.device("meta"):
        net = DECODERS.create({"type": "DualFrequencyDecoder", "level_widths": kind}, widths=widths, num_classes=19)
    levels, (c1, c2, c3, c4) = WIDTHS[kind], widths
    l1, l2, l3, l4 = levels

    def block(inputs, outputs):  # 3x3 without bias, BatchNorm
        return 9 * inputs * outputs + 2 * outputs

    expected = 4 * (c4 * l4 + l4) + block(c4 + 4 * l4, l4)  # pyramid pooling
    expected += c1 * c1 + c2 * c2 + c3 * c3 + c1 * l1 + c2 * l2 + c3 * l3  # selection and laterals, no bias
    expected += l4 * l3 + l3 + l3 * l2 + l2 + l2 * l1 + l1  # downwards
    expected += block(l1, l1) + block(l2, l2) + block(l3, l3) + block(sum(levels), 256) + 256 * 19 + 19
    assert sum(p.numel() for p in net.parameters()) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low_stages": [1], "high_stages": [1, 2]}, "stage 1 in low_stages and in high_stages"),
        ({"low_stages": [4]}, "less than or equal to 3"),
        ({"high_stages": [2, 2]}, "different stages out of 1, 2, 3"),
        ({"sigma": 0}, "greater than 0"),
        ({"level_widths": "large"}, "tiny"),
    ],
)
def test_what_is_no_option(options, message):
    with pytest.raises(ValidationError, match=message):
        DualFrequencyDecoderOptions(**options)
