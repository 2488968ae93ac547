from __future__ import annotations

import copy

import pytest
import torch

from mdg.models.interaction.stage import ModalityDivergenceInteraction
from mdg.registry import INTERACTIONS

PUBLISHED = {"divergence": {"mode": "topk", "ratio": 0.5}, "write_back": "value"}
STILL = {
    "local_attention": {"drop_path": 0, "heads": [2, 2, 2, 2], "kernel_size": [3, 3, 3, 3]},
    "channel_mamba": {"dropout": 0, "features": 8, "state": 3},
}


def interaction(**options) -> ModalityDivergenceInteraction:
    torch.manual_seed(0)
    options = {"type": "ModalityDivergenceInteraction", **PUBLISHED, **STILL, **options}
    return INTERACTIONS.create(options, stage=1, width=16)


def run(module, size, draw) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Outputs, and the gradients of a weighted sum of them with respect to inputs and parameters."""
    inputs = [draw(2, *size, 16, seed=s).requires_grad_() for s in (0, 1)]
    outputs = module(*inputs)[:2]
    sum((x * draw(*x.shape, seed=s)).sum() for s, x in enumerate(outputs, start=2)).backward()
    grads = {"rgb": inputs[0].grad, "thermal": inputs[1].grad}
    return list(outputs), {**grads, **{name: p.grad for name, p in module.named_parameters()}}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 7), (8, 8)], ids=str)
@pytest.mark.parametrize("parts", [{}, {"local_attention": None}, {"channel_mamba": None}], ids=str)
def test_sparse_equals_dense(draw, shaken, parts, size, training):
    sparse = shaken(interaction(**parts)).train(training)
    dense = copy.deepcopy(sparse)
    dense.sparse = False
    assert sparse.sparse
    (outputs, grads), (dense_outputs, dense_grads) = run(sparse, size, draw), run(dense, size, draw)
    for got, expected in zip(outputs, dense_outputs, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    for name, expected in dense_grads.items():
        scale = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(
            grads[name] / scale, expected / scale, rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_sparse_computes_the_selected_rows_only(draw):
    module, seen = interaction().eval(), []
    module.mamba.scans.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[0]))
    module(draw(2, 3, 5, 16), draw(2, 3, 5, 16, seed=1))
    assert seen == [2 * 8]  # ceil(15 / 2) of each image


def test_unselected_positions_stay_as_they_are(draw, shaken):
    rgb, thermal = draw(2, 4, 5, 16), draw(2, 4, 5, 16, seed=1)
    out = shaken(interaction()).eval()(rgb, thermal)
    selected = out.divergence.mask() > 0.5
    for before, after in ((rgb, out.rgb_BHWC), (thermal, out.thermal_BHWC)):
        assert torch.equal(before[~selected], after[~selected])
        assert (before[selected] != after[selected]).any(-1).all()


def test_without_both_parts_a_selected_position_doubles(draw):
    module = interaction(local_attention=None, channel_mamba=None)
    assert not list(module.parameters())
    rgb, thermal = draw(2, 3, 3, 16), draw(2, 3, 3, 16, seed=1)
    out = module(rgb, thermal)
    torch.testing.assert_close(out.rgb_BHWC, rgb * (1 + out.divergence.mask()[..., None]))
    torch.testing.assert_close(out.thermal_BHWC, thermal * (1 + out.divergence.mask()[..., None]))


def test_attention_alone_is_written_back_with_the_mask(draw, shaken):
    module = shaken(interaction(channel_mamba=None)).eval()
    rgb, thermal = draw(1, 4, 4, 16), draw(1, 4, 4, 16, seed=1)
    out, u = module(rgb, thermal), module.attention(rgb, thermal)
    torch.testing.assert_close(out.rgb_BHWC, rgb + out.divergence.mask()[..., None] * u[0])
    torch.testing.assert_close(out.thermal_BHWC, thermal + out.divergence.mask()[..., None] * u[1])


@pytest.mark.parametrize("mode", ["soft", "none"])
def test_other_modes_write_everywhere(draw, shaken, mode):
    module = shaken(interaction(divergence={"mode": mode})).eval()
    rgb, thermal = draw(1, 4, 4, 16), draw(1, 4, 4, 16, seed=1)
    out = module(rgb, thermal)
    v_rgb, v_thermal = (v.view(1, 4, 4, 16) for v in module.mamba(*module.attention(rgb, thermal)))
    gate = out.divergence.mask()[..., None]
    assert gate.gt(0).all() and (mode == "soft" or gate.eq(1).all())
    torch.testing.assert_close(out.rgb_BHWC, rgb + gate * v_rgb)
    torch.testing.assert_close(out.thermal_BHWC, thermal + gate * v_thermal)


def test_the_mask_comes_from_the_features_before_attention(draw):
    rgb, thermal = draw(1, 4, 4, 16), draw(1, 4, 4, 16, seed=1)
    module = interaction().eval()
    assert torch.equal(module(rgb, thermal).divergence.index_BK, module.mask(rgb, thermal).index_BK)


def test_stage_picks_its_own_options():
    options = {"type": "ModalityDivergenceInteraction"}
    built = [INTERACTIONS.create(options, stage=s, width=c) for s, c in enumerate((32, 64, 160, 256), start=1)]
    assert [(m.attention.heads, m.attention.kernel_size) for m in built] == [(2, 13), (4, 7), (10, 5), (16, 5)]
    assert [m.mamba.rgb.conv.in_channels for m in built] == [128, 256, 320, 512]


@pytest.mark.parametrize("sparse", [True, False])
def test_mask_gets_its_gradient_through_the_write_back(draw, sparse):
    """With both parts off, F + M F: the straight-through multiplier is the only path beside the identity."""
    module = interaction(local_attention=None, channel_mamba=None, sparse=sparse)
    rgb, thermal = draw(1, 2, 2, 16).requires_grad_(), draw(1, 2, 2, 16, seed=1).requires_grad_()
    out = module(rgb, thermal)
    (grad,) = torch.autograd.grad(out.rgb_BHWC.sum(), thermal)
    selected = out.divergence.mask() > 0.5
    assert grad[selected].ne(0).any() and not grad[~selected].any()


@pytest.mark.parametrize("sparse", [True, False])
def test_the_change_is_written_back_without_the_features(draw, shaken, sparse):
    """F + M (V - F): a selected position becomes V, the others stay."""
    value = shaken(interaction(sparse=sparse)).eval()
    change = copy.deepcopy(value)
    change.change = True
    rgb, thermal = draw(2, 4, 5, 16), draw(2, 4, 5, 16, seed=1)
    out, plain = change(rgb, thermal), value(rgb, thermal)
    gate = out.divergence.mask()[..., None]
    torch.testing.assert_close(out.rgb_BHWC, plain.rgb_BHWC - gate * rgb)
    torch.testing.assert_close(out.thermal_BHWC, plain.thermal_BHWC - gate * thermal)


def test_the_change_is_an_option():
    assert interaction(write_back="change").change and not interaction().change


def test_a_learned_scale_begins_with_the_identity_and_learns(draw):
    module = interaction(learned_scale=True, write_back="change").eval()
    rgb, thermal = draw(1, 4, 4, 16), draw(1, 4, 4, 16, seed=1)
    out = module(rgb, thermal)
    assert torch.equal(out.rgb_BHWC, rgb) and torch.equal(out.thermal_BHWC, thermal)
    (out.rgb_BHWC.square().sum() + out.thermal_BHWC.square().sum()).backward()
    assert all(scale.grad.any() for scale in module.scale)
    with torch.no_grad():
        module.scale[0].fill_(2), module.scale[1].fill_(0.5)
    plain = interaction(write_back="change").eval()
    plain.load_state_dict({k: v for k, v in module.state_dict().items() if not k.startswith("scale")})
    doubled, single = module(rgb, thermal), plain(rgb, thermal)
    torch.testing.assert_close(doubled.rgb_BHWC - rgb, 2 * (single.rgb_BHWC - rgb))
    torch.testing.assert_close(doubled.thermal_BHWC - thermal, 0.5 * (single.thermal_BHWC - thermal))
