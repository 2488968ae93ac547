from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn

from mdg.models.decoders.dynamic_linear import ConditionBranch, DynamicLinear
from mdg.models.decoders.frequency_gate import (
    DynamicFrequencyGate,
    half_interpolation,
    highpass,
    periodic_interpolation,
)
from mdg.models.decoders.segformer import SegFormerDecoder
from mdg.models.layers import GroupedLinear, MultiScaleHead, StarReLU, to_bchw, to_bhwc
from mdg.ops import resized_sum
from mdg.options.models import SegFormerDecoderOptions, SemanticDynamicDecoderOptions
from mdg.registry import DECODERS

WIDTHS = (8, 16, 24, 32)


def maps(draw) -> list[torch.Tensor]:
    return [draw(2, 8 // 2**s, 16 // 2**s, width, seed=s) for s, width in enumerate(WIDTHS)]


# --- shared layers -----------------------------------------------------------------------------------------------


def test_star_relu():
    layer = StarReLU()
    x = torch.tensor([-2.0, 0.0, 3.0])
    torch.testing.assert_close(layer(x), torch.tensor([-0.4472, -0.4472, 0.8944 * 9 - 0.4472]))
    unit = layer(torch.randn(100_000, generator=torch.Generator().manual_seed(0)))
    assert abs(unit.mean()) < 0.02 and abs(unit.std() - 1) < 0.02
    assert {name for name, _ in layer.named_parameters()} == {"scale", "bias"}


def test_grouped_linear_equals_a_block_diagonal_matrix(draw, shaken):
    layer = shaken(GroupedLinear(8, 12, groups=4, bias=True))
    weight = torch.block_diag(*layer.weight[:, :, 0, 0].chunk(4))
    x = draw(2, 3, 5, 8)
    torch.testing.assert_close(layer(x), x @ weight.T + layer.bias)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (16, 24)], ids=str)
def test_multi_scale_head_equals_concat_and_convolution_at_full_resolution(draw, shaken, size, training):
    head = shaken(MultiScaleHead(4, 6, 3, dropout=0.0), std=0.3).train(training)
    inputs = [draw(2, size[0] // 2**s, size[1] // 2**s, 6, seed=s).requires_grad_() for s in range(4)]
    running = [head.norm.running_mean.clone(), head.norm.running_var.clone()]
    got = head(inputs)
    resized = [F.interpolate(x.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False) for x in inputs]
    fused = F.conv2d(torch.cat(resized, 1), head.fuse.weight[:, :, None, None])
    normed = F.batch_norm(fused, *running, head.norm.weight, head.norm.bias, training=training)
    expected = head.classifier(F.relu(normed))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    weight = draw(*got.shape, seed=9)
    for grad, expected_grad in zip(
        torch.autograd.grad(got, inputs, weight), torch.autograd.grad(expected, inputs, weight), strict=True
    ):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("embedded", [False, True])
def test_inference_takes_the_norm_into_the_projections(draw, shaken, embedded):
    """Without gradients the same logits, for statistics that are not those of a start."""
    head = shaken(MultiScaleHead(4, 6, 3, dropout=0.1), std=0.3).eval()
    head.norm.running_mean.copy_(draw(6))
    head.norm.running_var.copy_(draw(6, seed=1).square() + 0.5)
    linear = shaken(nn.ModuleList(nn.Linear(6, 6) for _ in range(4)), std=0.3) if embedded else None
    inputs = [draw(2, 16 // 2**s, 24 // 2**s, 6, seed=s) for s in range(4)]
    expected = head(inputs, linear)
    with torch.no_grad():
        torch.testing.assert_close(head(inputs, linear), expected, rtol=1e-5, atol=1e-5)


def test_a_dropped_channel_is_one_that_the_classifier_does_not_see(draw, shaken):
    head = shaken(MultiScaleHead(4, 64, 3, dropout=0.5), std=0.3)
    inputs = [draw(2, 16 // 2**s, 24 // 2**s, 64, seed=s) for s in range(4)]
    torch.manual_seed(5)
    got = head(inputs)
    projected = [x @ w.t() for x, w in zip(inputs, head.fuse.weight.chunk(4, 1), strict=True)]
    hidden = F.relu(head.norm(to_bchw(resized_sum(projected))))
    torch.manual_seed(5)
    expected = head.classifier(to_bchw(head.dropout(to_bhwc(hidden))))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_segformer_decoder(draw):
    decoder = SegFormerDecoder(SegFormerDecoderOptions(embed_dim=6, dropout=0.0), widths=WIDTHS, num_classes=3).eval()
    logits = decoder(maps(draw))
    assert logits.shape == (2, 3, 8, 16)
    torch.testing.assert_close(logits, decoder.head([f(x) for f, x in zip(decoder.linear, maps(draw), strict=True)]))


# --- dynamic linear ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("embed", [4, 25])  # the larger one without matrices where cells have at most 4 tokens
@pytest.mark.parametrize(("cells", "patch"), [((2, 3), 4), ((1, 1), 8), ((3, 1), 2), ((2, 2), 1)], ids=str)
def test_dynamic_linear_equals_a_loop_over_cells(draw, shaken, cells, patch, embed):
    (h, w), width = cells, 6
    layer = shaken(DynamicLinear(8, width, embed, groups=2).double())
    x = draw(2, h * patch, w * patch, width, dtype=torch.float64)
    condition = draw(2, h, w, 8, seed=1, dtype=torch.float64)
    got = layer(x, condition)
    weight_GOI, bias_GO = layer.generator.weight[:, :, 0, 0].chunk(2), layer.generator.bias.chunk(2)
    for b in range(2):
        for i in range(h):
            for j in range(w):
                groups = zip(weight_GOI, condition[b, i, j].chunk(2), bias_GO, strict=True)
                matrix = torch.cat([weight @ c + bias for weight, c, bias in groups]).view(width, embed)
                cell = (b, slice(i * patch, (i + 1) * patch), slice(j * patch, (j + 1) * patch))
                torch.testing.assert_close(got[cell], x[cell] @ matrix)


def test_condition_branch_equals_the_definition(draw, shaken):
    branch = shaken(ConditionBranch(8, norm="layer", star_relu=(1.0, 0.0)).double())
    deepest = draw(2, 3, 2, 8, dtype=torch.float64)
    reduced = F.conv2d(deepest.permute(0, 3, 1, 2), branch.reduce.weight[:, :, None, None], branch.reduce.bias)
    spread = F.conv2d(reduced, branch.conv.weight, branch.conv.bias, padding=1, groups=4).permute(0, 2, 3, 1)
    normed = F.layer_norm(spread, (4,), branch.norm.weight, branch.norm.bias)
    expected = branch.act.scale * F.relu(normed) ** 2 + branch.act.bias
    torch.testing.assert_close(branch(deepest), expected)


def test_dynamic_linear_starts_with_unit_gain(draw):
    torch.manual_seed(0)
    y = DynamicLinear(128, 64, 256, groups=8)(draw(1, 16, 16, 64), StarReLU()(draw(1, 4, 4, 128, seed=1)))
    assert 0.6 < y.std() < 1.5


# --- frequency gate ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 8, 120])
def test_interpolation_is_the_identity_at_the_reference_grid(n):
    torch.testing.assert_close(periodic_interpolation(torch.fft.fftfreq(n), n), torch.eye(n), rtol=0, atol=1e-4)
    if n % 2 == 0:
        columns = n // 2 + 1
        got = half_interpolation(torch.fft.rfftfreq(n), columns)
        torch.testing.assert_close(got, torch.eye(columns), rtol=0, atol=1e-4)


@pytest.mark.parametrize("n", [1, 2, 5, 9, 64])
def test_interpolation_weights_sum_to_one(n):
    for matrix in (periodic_interpolation(torch.fft.fftfreq(n), 12), half_interpolation(torch.fft.rfftfreq(n), 7)):
        torch.testing.assert_close(matrix.sum(1), torch.ones(len(matrix)), rtol=0, atol=1e-5)
        assert matrix.min() >= 0


def test_interpolation_is_linear_and_wraps():
    known = torch.tensor([0.0, 10.0, 20.0, 30.0])  # at 0, 1/4, 1/2 and 3/4, that is -1/4
    matrix = periodic_interpolation(torch.tensor([0.125, -0.25, -0.125, 0.5, -0.5]), 4)
    torch.testing.assert_close(matrix @ known, torch.tensor([5.0, 30.0, 15.0, 20.0, 20.0]))
    matrix = half_interpolation(torch.tensor([0.0, 0.125, 0.5]), 3)
    torch.testing.assert_close(matrix @ torch.tensor([0.0, 10.0, 20.0]), torch.tensor([0.0, 5.0, 20.0]))


def test_highpass_radius():
    mask = highpass(8, 8, 0.5, torch.device("cpu"))  # keeps radii of 1/4 cycle a pixel and more
    expected = [[(y**2 + x**2) ** 0.5 >= 2 for x in range(5)] for y in (0, 1, 2, 3, 4, 3, 2, 1)]
    assert mask.bool().tolist() == expected


def gate(cutoff: float = 0.25, reference=(12, 16), **others) -> DynamicFrequencyGate:
    torch.manual_seed(0)
    options = SemanticDynamicDecoderOptions(
        embed_dim=5, frequency_filters=3, highpass_cutoff=cutoff, frequency_reference=reference, **others
    )
    return DynamicFrequencyGate(options, width=6, condition_width=8)


def open_gate(module: DynamicFrequencyGate) -> DynamicFrequencyGate:
    """A gate of one everywhere."""
    with torch.no_grad():
        module.bank.zero_()
    return module


SIZES = [(1, 1), (2, 3), (7, 5), (12, 16), (13, 9), (30, 40)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_gate_of_any_size_lies_between_zero_and_two(draw, shaken, size):
    module = shaken(gate(), std=2.0)
    gamma = module.gate(draw(2, 2, 2, 8), *size)
    assert gamma.shape == (2, 4, size[0], size[1] // 2 + 1)
    assert gamma.min() > 0 and gamma.max() < 2 and gamma.dtype == torch.float32
    assert module(draw(2, *size, 6), draw(2, 2, 2, 8)).shape == (2, *size, 5)


def test_gate_at_the_reference_grid_is_the_routed_bank(draw, shaken):
    module = shaken(gate(), std=1.0)
    condition = draw(2, 3, 2, 8)
    hidden = F.gelu(module.route.fc1(condition.mean((1, 2))))
    route = module.route.fc2(hidden).view(2, 4, 3).softmax(-1)
    expected = 2 * torch.sigmoid(sum(route[:, :, k, None, None] * module.bank[k] for k in range(3)))
    torch.testing.assert_close(module.gate(condition, 12, 16), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_constant_map_leaves_only_the_bias(shaken, draw, size):
    module = shaken(gate(), std=0.5)
    f = module(torch.full((1, *size, 6), 3.0), draw(1, 2, 2, 8))
    torch.testing.assert_close(f, module.expand.bias.expand_as(f), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("waves", "kept"),
    [((1, 0), False), ((0, 1), False), ((1, 1), False), ((0, 7), True), ((6, 0), True), ((2, 2), True)],
)
def test_highpass_removes_low_waves_and_keeps_high_ones(draw, waves, kept):
    """16x16 with the cut-off at 1/4 of Nyquist, that is at two waves across the map."""
    module, seen = open_gate(gate(cutoff=0.25)), []
    y, x = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    wave = torch.cos(2 * torch.pi * (waves[0] * y + waves[1] * x) / 16 + 0.3)
    # So far from zero GELU is the identity.
    module.reduce.register_forward_hook(lambda *_: 20 + wave[None, ..., None].expand(1, 16, 16, 4))
    module.expand.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module(draw(1, 16, 16, 6), draw(1, 2, 2, 8))
    expected = wave if kept else torch.zeros(16, 16)
    torch.testing.assert_close(seen[0][0, ..., 0], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(7, 5), (8, 6)], ids=str)
def test_without_cutoff_an_open_gate_is_the_identity(draw, size):
    module = open_gate(gate(cutoff=0))
    x = draw(1, *size, 6)
    torch.testing.assert_close(
        module(x, draw(1, 2, 2, 8)), module.expand(F.gelu(module.reduce(x))), rtol=1e-5, atol=1e-5
    )


def test_fft_and_gate_stay_float32_under_autocast(draw, monkeypatch):
    module, seen = gate(), []
    rfft2 = torch.fft.rfft2
    monkeypatch.setattr(torch.fft, "rfft2", lambda x, **options: (seen.append(x.dtype), rfft2(x, **options))[1])
    module.route.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        f = module(draw(1, 8, 8, 6), draw(1, 2, 2, 8))
    assert seen == [torch.float32, torch.float32] and f.isfinite().all()
    torch.testing.assert_close(f.float(), module(draw(1, 8, 8, 6), draw(1, 2, 2, 8)), rtol=0.1, atol=0.05)


# --- the whole decoder -------------------------------------------------------------------------------------------


def decoder(**options) -> nn.Module:
    torch.manual_seed(0)
    options = {"embed_dim": 6, "groups": [2, 2, 4], "frequency_reference": [8, 12], "dropout": 0, **options}
    return DECODERS.create({"type": "SemanticDynamicDecoder", **options}, widths=WIDTHS, num_classes=3).eval()


@pytest.mark.parametrize("dynamic", [[], [1], [1, 2, 3]], ids=str)
@pytest.mark.parametrize("frequency", [[], [1], [3], [1, 2, 3]], ids=str)
def test_stages_of_the_decoder(draw, shaken, dynamic, frequency):
    module, inputs = shaken(decoder(dynamic_stages=dynamic, frequency_stages=frequency)), maps(draw)
    embedded = []
    for stage, x in enumerate(inputs, start=1):
        linear, key = module.linear[str(stage)], str(stage)
        assert isinstance(linear, DynamicLinear) == (stage in dynamic)
        assert (key in module.frequency) == (stage in frequency)
        condition = module.condition[key](inputs[-1]) if key in module.condition else None
        y = linear(x, condition) if stage in dynamic else linear(x)
        embedded.append(y * (1 + module.frequency[key](x, condition)) if stage in frequency else y)
    logits = module(inputs)
    assert logits.shape == (2, 3, 8, 16)
    torch.testing.assert_close(logits, module.head(embedded))


@pytest.mark.parametrize("stages", [[4], [0], [1, 1]])
def test_stages_out_of_range(stages):
    for key in ("dynamic_stages", "frequency_stages"):
        with pytest.raises(ValidationError, match="different stages"):
            decoder(**{key: stages})


def test_a_generator_learns_at_its_rate(draw):
    """It begins as any other; a step of Adam moves what it generates by that share."""
    x, condition = draw(1, 8, 8, 6), draw(1, 2, 2, 8, seed=1)
    made = {}
    for rate in (1.0, 0.25):
        torch.manual_seed(0)
        layer = DynamicLinear(8, 6, 10, groups=2, rate=rate)
        before = layer(x, condition)
        optimizer = torch.optim.Adam(layer.parameters(), lr=1e-4, eps=0)
        before.square().sum().backward()
        optimizer.step()
        made[rate] = before.detach(), layer(x, condition).detach()
    torch.testing.assert_close(made[1.0][0], made[0.25][0])
    moved = {rate: after - before for rate, (before, after) in made.items()}
    torch.testing.assert_close(moved[0.25], 0.25 * moved[1.0], rtol=1e-3, atol=1e-5)
