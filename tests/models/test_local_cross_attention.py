"""Local cross-attention against the formulas of its definition, position by position in float64.

``A_r = NA(q_r, -k_t, v_t)``; ``U = F + Proj(g A + (1 - g) F)``; ``U = U + MLP(LN(U))``; for thermal vice versa.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mdg.models.interaction.local_cross_attention import LocalCrossAttention, QueryKeyNorm
from mdg.options.models import LocalCrossAttentionOptions


def attention(width: int, heads: int, kernel_size: int, **options) -> LocalCrossAttention:
    options = LocalCrossAttentionOptions(heads=4 * [heads], kernel_size=4 * [kernel_size], **options)
    return LocalCrossAttention(options, stage=1, width=width)


def window(position: int, size: int, kernel: int) -> range:
    """Neighbourhood on one side: it shifts inward at a border, and is the whole side where that is shorter."""
    kernel = min(kernel, size)
    start = min(max(position - kernel // 2, 0), size - kernel)
    return range(start, start + kernel)


def attend(q_HWC, k_HWC, v_HWC, heads: int, kernel: int) -> torch.Tensor:
    H, W, C = q_HWC.shape
    out, width = torch.zeros_like(q_HWC), C // heads
    for y in range(H):
        for x in range(W):
            around = [(j, i) for j in window(y, H, kernel) for i in window(x, W, kernel)]
            for head in range(heads):
                part = slice(head * width, (head + 1) * width)
                scores = [-(q_HWC[y, x, part] @ k_HWC[j, i, part]) / math.sqrt(width) for j, i in around]
                weights = torch.stack(scores).softmax(0)
                out[y, x, part] = sum(w * v_HWC[j, i, part] for w, (j, i) in zip(weights, around, strict=True))
    return out


def linear(layer, x):
    return x @ layer.weight.T + (0 if layer.bias is None else layer.bias)


def layer_norm(layer, x):
    mean, var = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    return (x - mean) / (var + layer.eps).sqrt() * layer.weight + layer.bias


def reference(module: LocalCrossAttention, rgb_HWC, thermal_HWC) -> list[torch.Tensor]:
    C, features = rgb_HWC.shape[-1], (rgb_HWC, thermal_HWC)
    normed = [layer_norm(module.norm[m], features[m]) for m in (0, 1)]
    joint = torch.cat(normed, -1)
    queries = linear(module.query, joint)
    gates = torch.sigmoid(linear(module.gate.fc2, F.gelu(linear(module.gate.fc1, joint))))
    outputs = []
    for own, other in ((0, 1), (1, 0)):
        keys_values = linear(module.key_value[other], normed[other])
        q = queries[..., own * C : (own + 1) * C]
        attended = attend(q, keys_values[..., :C], keys_values[..., C:], module.heads, module.kernel_size)
        gate = gates[..., own : own + 1]
        u = features[own] + linear(module.proj[own], gate * attended + (1 - gate) * features[own])
        hidden = linear(module.mlp[own].fc1, layer_norm(module.mlp_norm[own], u))
        outputs.append(u + linear(module.mlp[own].fc2, F.gelu(hidden)))
    return outputs


@pytest.mark.parametrize(
    ("size", "kernel", "heads"), [((5, 6), 3, 2), ((4, 7), 5, 4), ((3, 2), 5, 1), ((1, 1), 3, 2)], ids=str
)
def test_equals_the_definition(draw, shaken, size, kernel, heads):
    module = shaken(attention(8, heads, kernel).double().eval(), std=0.4)
    rgb, thermal = (draw(2, *size, 8, seed=s, dtype=torch.float64) for s in (0, 1))
    got = module(rgb, thermal)
    for image in (0, 1):
        for mine, expected in zip(got, reference(module, rgb[image], thermal[image]), strict=True):
            torch.testing.assert_close(mine[image], expected, rtol=1e-9, atol=1e-9)


def test_mlps_have_ratio_two_and_no_bias():
    module = attention(8, 2, 3)
    for mlp in module.mlp:
        assert mlp.fc1.weight.shape == (16, 8) and mlp.fc1.bias is None and mlp.fc2.bias is None


def only_attention(negate_keys: bool) -> LocalCrossAttention:
    """RGB reads thermal alone: query and key are both the normed thermal map, the value marks its position."""
    module = attention(4, 1, 3, drop_path=0.0, negate_keys=negate_keys).double().eval()
    eye, zero = torch.eye(4).double(), torch.zeros(4, 4).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        for norm in module.norm:
            norm.weight.fill_(1)
        module.query.weight.copy_(torch.cat([torch.cat([zero, eye], 1)] * 2))
        for stream in (0, 1):
            module.key_value[stream].weight.copy_(torch.cat([eye, eye]))
            module.proj[stream].weight.copy_(eye)
        module.gate.fc2.bias.fill_(50.0)
    return module


@pytest.mark.parametrize(("negate_keys", "attended"), [(True, "unlike"), (False, "like")])
def test_a_similar_neighbour_weighs_less(negate_keys, attended):
    like = torch.tensor([3.0, -1.0, -1.0, -1.0]).double()
    thermal = torch.stack([like, like, -like]).view(1, 1, 3, 4)
    update, _ = only_attention(negate_keys)(torch.zeros_like(thermal), thermal)
    centre = update[0, 0, 1] @ like  # the query is `like`; two neighbours are like it, one is its opposite
    assert (centre < 0) == (attended == "unlike") and centre.abs() > 1


def test_normalized_queries_and_keys_weigh_by_the_cosine(draw, shaken):
    """However long queries and keys are, the output stays; without the norm it does not."""
    x, y = draw(1, 4, 4, 16, seed=1), draw(1, 4, 4, 16, seed=2)
    moved = []
    for qk_norm in (True, False):
        module = shaken(attention(16, 2, 3, qk_norm=qk_norm).eval())
        before = module(x, y)[0]
        with torch.no_grad():
            module.query.weight *= 30
            module.query.bias *= 30
            for linear in module.key_value:
                linear.weight[:16] *= 30
                linear.bias[:16] *= 30
        moved.append(float((module(x, y)[0] - before).detach().abs().max()))
    assert moved[0] < 1e-4 < 1e-2 < moved[1]


def test_the_norm_of_queries_and_keys_by_hand():
    norm = QueryKeyNorm(4).double()
    q = torch.tensor([[3.0, 0.0, 4.0, 0.0]], dtype=torch.float64)
    with torch.no_grad():
        norm.query.weight.copy_(torch.tensor([1.0, 1.0, 2.0, 1.0]))
    found_q, found_k = norm(q, -q)
    torch.testing.assert_close(found_q, torch.tensor([[1.2, 0.0, 3.2, 0.0]]).double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found_k, torch.tensor([[-1.2, 0.0, -1.6, 0.0]]).double(), rtol=1e-6, atol=1e-6)


def test_scaled_branches_by_their_definition(draw, shaken):
    """A scale after the projection and after the MLP is one inside their last matrices (and bias)."""
    scaled = shaken(attention(8, 2, 3, layer_scale=0.1).double().eval(), std=0.4)
    plain = attention(8, 2, 3).double().eval()
    state = {name: value.clone() for name, value in scaled.state_dict().items()}
    for stream in (0, 1):
        attended, mlp = (state.pop(f"layer_scale.{2 * stream + branch}") for branch in (0, 1))
        assert attended.shape == mlp.shape == (8,), "vectors, which do not decay"
        state[f"proj.{stream}.weight"] *= attended[:, None]
        state[f"proj.{stream}.bias"] *= attended
        state[f"mlp.{stream}.fc2.weight"] *= mlp[:, None]
    plain.load_state_dict(state)
    rgb, thermal = (draw(2, 4, 5, 8, seed=s, dtype=torch.float64) for s in (0, 1))
    for one, other in zip(scaled(rgb, thermal), plain(rgb, thermal), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_scales_start_where_the_options_say():
    module = attention(8, 2, 3, layer_scale=0.01)
    assert [vector.tolist() for vector in module.layer_scale] == 4 * [torch.full((8,), 0.01).tolist()]
    assert attention(8, 2, 3).layer_scale is None


@pytest.mark.parametrize("stages", [[], [0], [1, 1], [5]], ids=str)
def test_stages_that_are_none_are_refused(stages):
    with pytest.raises(ValueError, match="stages"):
        LocalCrossAttentionOptions(stages=stages)


def test_streams_have_their_own_parameters(draw, shaken):
    module = shaken(attention(8, 2, 3).eval())
    x = draw(1, 4, 4, 8)
    u_rgb, u_thermal = module(x, x)
    assert (u_rgb - u_thermal).abs().max() > 1e-2


def test_far_positions_do_not_matter(draw, shaken):
    module = shaken(attention(8, 2, 3).eval())
    rgb, thermal = draw(1, 8, 8, 8), draw(1, 8, 8, 8, seed=1)
    moved = thermal.clone()
    moved[0, 4, 4] += draw(8, seed=2)
    changed = (module(rgb, moved)[0] - module(rgb, thermal)[0]).abs().amax(-1)[0] > 1e-7
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[3:6, 3:6] = True
    assert torch.equal(changed, expected)


def test_drop_path_acts_in_training_only(draw, shaken):
    module = shaken(attention(8, 2, 3, drop_path=0.9))
    rgb, thermal = draw(8, 3, 3, 8), draw(8, 3, 3, 8, seed=1)
    torch.manual_seed(0)
    same = (module.train()(rgb, thermal)[0] == rgb).flatten(1).all(1)
    assert same.any(), "both branches of some image should have been dropped"
    assert not (module.eval()(rgb, thermal)[0] == rgb).flatten(1).all(1).any()
