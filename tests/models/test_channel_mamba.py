"""Channel Mamba against a loop over the tokens of one position, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from mdg.models.interaction.channel_mamba import ChannelMamba
from mdg.options.models import ChannelMambaOptions

FEATURES = 8


def mamba(width: int = 16, expansion: int = 2, **options) -> ChannelMamba:
    torch.manual_seed(0)
    options = {"expansion": 4 * [expansion], "features": FEATURES, "state": 3, **options}
    return ChannelMamba(ChannelMambaOptions(**options), stage=1, width=width)


def grouped(layer, x_C):
    """A grouped 1x1 convolution on one position, group by group."""
    weight_OI, groups = layer.weight[:, :, 0, 0], layer.groups
    parts = zip(weight_OI.chunk(groups), x_C.chunk(groups), strict=True)
    return torch.cat([weight @ x for weight, x in parts])


def layer_norm(layer, x_C):
    return (x_C - x_C.mean()) / (x_C.var(unbiased=False) + layer.eps).sqrt() * layer.weight + layer.bias


def tokens_at(ends, u_HWC, y: int, x: int) -> list[torch.Tensor]:
    """Channel tokens of one modality at one position: LN, grouped expansion, 3x3 depthwise, SiLU."""
    H, W, _ = u_HWC.shape
    total_E = ends.conv.bias.clone()
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if 0 <= y + dy < H and 0 <= x + dx < W:
                neighbour_E = grouped(ends.expand, layer_norm(ends.norm, u_HWC[y + dy, x + dx]))
                total_E = total_E + ends.conv.weight[:, 0, dy + 1, dx + 1] * neighbour_E
    return list(F.silu(total_E).split(FEATURES))


def scan(direction, tokens: list[torch.Tensor], order: list[int]) -> dict[int, torch.Tensor]:
    rank, state = direction.dt_proj.in_features, direction.A_log.shape[1]
    A_GN, h_GN, out = -torch.exp(direction.A_log), torch.zeros_like(direction.A_log), {}
    for step in order:
        u_G = tokens[step]
        low_R, B_N, C_N = (direction.x_proj.weight @ u_G).split([rank, state, state])
        dt_G = torch.log1p(torch.exp(direction.dt_proj.weight @ low_R + direction.dt_proj.bias))
        h_GN = torch.exp(dt_G[:, None] * A_GN) * h_GN + (dt_G * u_G)[:, None] * B_N
        out[step] = h_GN @ C_N + direction.D * u_G
    return out


def finish(ends, tokens: list[torch.Tensor], u_C):
    u_C = u_C + grouped(ends.project, layer_norm(ends.out_norm, torch.cat(tokens)))
    hidden = F.gelu(ends.ffn.fc1.weight @ layer_norm(ends.ffn_norm, u_C) + ends.ffn.fc1.bias)
    return u_C + ends.ffn.fc2.weight @ hidden + ends.ffn.fc2.bias


def reference(module, rgb_HWC, thermal_HWC, y: int, x: int):
    rgb, thermal = tokens_at(module.rgb, rgb_HWC, y, x), tokens_at(module.thermal, thermal_HWC, y, x)
    tokens = rgb + thermal
    length = len(tokens)
    orders = [list(range(length)), list(range(length))[::-1]]
    scans = [scan(direction, tokens, order) for direction, order in zip(module.scans, orders, strict=False)]
    summed = [sum(one[step] for one in scans) for step in range(length)]
    split = len(rgb)
    return finish(module.rgb, summed[:split], rgb_HWC[y, x]), finish(module.thermal, summed[split:], thermal_HWC[y, x])


@pytest.mark.parametrize("options", [{}, {"bidirectional": False}, {"dt_rank": 3, "expansion": 4}], ids=str)
@pytest.mark.parametrize("place", [(1, 2), (0, 0), (2, 3)], ids=str)
def test_one_position_equals_the_definition(draw, shaken, options, place):
    module = shaken(mamba(**options).eval())
    rgb, thermal = draw(2, 3, 4, 16), draw(2, 3, 4, 16, seed=1)
    got = [v_NC.view(2, 3, 4, 16)[1][place] for v_NC in module(rgb, thermal)]
    for mine, expected in zip(
        got, reference(module.double(), rgb[1].double(), thermal[1].double(), *place), strict=True
    ):
        torch.testing.assert_close(mine.double(), expected, rtol=1e-5, atol=1e-5)


def test_selected_rows_equal_the_rows_of_all(draw, shaken):
    module = shaken(mamba().eval())
    rgb, thermal = draw(2, 3, 4, 16), draw(2, 3, 4, 16, seed=1)
    index_N = torch.tensor([0, 7, 11, 12, 23])
    for few, many in zip(module(rgb, thermal, index_N), module(rgb, thermal), strict=True):
        torch.testing.assert_close(few, many[index_N])


def test_the_sequence_runs_over_channels_not_space(draw, shaken):
    module = shaken(mamba().eval())
    rgb, thermal = draw(1, 7, 7, 16), draw(1, 7, 7, 16, seed=1)
    moved = rgb.clone()
    moved[0, 3, 3] += draw(16, seed=2)
    reach = torch.zeros(7, 7, dtype=torch.bool)
    reach[2:5, 2:5] = True  # the 3x3 depthwise convolution
    for before, after in zip(module(rgb, thermal), module(moved, thermal), strict=True):
        changed = (before != after).view(7, 7, 16).any(-1)
        assert torch.equal(changed, reach), "one modality reaches both, within the convolution only"


@pytest.mark.parametrize("bidirectional", [True, False])
def test_thermal_reaches_rgb_only_in_the_backward_scan(draw, shaken, bidirectional):
    module = shaken(mamba(bidirectional=bidirectional).eval())
    rgb, thermal = draw(1, 2, 2, 16), draw(1, 2, 2, 16, seed=1)
    before, after = module(rgb, thermal)[0], module(rgb, thermal + draw(16, seed=2))[0]
    assert torch.equal(before, after) != bidirectional


@pytest.mark.parametrize(("stage", "width", "length"), [(1, 64, 16), (2, 128, 32), (3, 320, 40), (4, 512, 64)])
def test_token_counts_of_the_design(monkeypatch, stage, width, length):
    module = ChannelMamba(ChannelMambaOptions(), stage=stage, width=width)
    seen = []
    module.scans.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    module(torch.zeros(1, 1, 2, width), torch.zeros(1, 1, 2, width))
    assert seen == [(2, length, 32)]
    assert module.rgb.expand.groups == module.rgb.project.groups == width // 4


def test_initialisation_of_the_scan():
    module = mamba(features=32, width=32, state=12)
    assert len(module.scans) == 2
    for direction in module.scans:
        torch.testing.assert_close(direction.A_log.exp(), torch.arange(1.0, 13).repeat(32, 1))
        assert direction.D.eq(1).all()
        assert direction.x_proj.weight.shape == (2 + 12 + 12, 32) and direction.x_proj.bias is None
        dt_G = F.softplus(direction.dt_proj.bias)
        assert dt_G.min() >= 0.0499 and dt_G.max() <= 1.001
        assert dt_G.log().std() > 0.5, "a log-uniform draw is spread over more than a decade"
    assert not torch.equal(module.scans[0].dt_proj.bias, module.scans[1].dt_proj.bias)


def test_the_first_steps_have_bounds_of_their_own():
    for direction in mamba(features=32, width=32, step_range=(0.001, 0.1)).scans:
        dt_G = F.softplus(direction.dt_proj.bias)
        assert 0.999e-3 <= dt_G.min() < 0.02 < dt_G.max() <= 0.1001
    with pytest.raises(ValidationError, match="expected the lower bound first"):
        ChannelMambaOptions(step_range=(1.0, 0.1))


def test_initialisation_survives_the_general_rule(small_model):
    for stage in small_model().interaction:
        for direction in stage.mamba.scans:
            dt = F.softplus(direction.dt_proj.bias)
            assert dt.min() >= 0.0499 and dt.max() <= 1.001
            assert direction.dt_proj.weight.abs().max() <= 2**-0.5 and direction.dt_proj.weight.std() > 0.2


def test_scan_stays_float32_under_autocast(draw, shaken):
    scan, tokens = shaken(mamba().scans), draw(4, 6, FEATURES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = scan(tokens)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, scan(tokens), rtol=0, atol=0)


def test_width_that_does_not_divide_into_tokens():
    with pytest.raises(ValueError, match="features=32"):
        mamba(12, 2, features=32)
