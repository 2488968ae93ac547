from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from mdg.models.interaction.divergence import DivergenceMask
from mdg.options.models import DivergenceOptions


def mask(width: int = 4, **options) -> DivergenceMask:
    return DivergenceMask(DivergenceOptions(**{"mode": "topk", **options}), width=width)


def by_angle(angles: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Two maps with the given angle between them, of unequal lengths: ``d = 1 - cos(angle)``."""
    angle_1HW = torch.tensor([angles], dtype=torch.float64)
    rgb = torch.stack([torch.ones_like(angle_1HW), torch.zeros_like(angle_1HW)], -1)
    thermal = torch.stack([angle_1HW.cos(), angle_1HW.sin()], -1)
    return 3 * rgb, 0.2 * thermal


def test_divergence_is_one_minus_the_cosine():
    d_BHW = mask()(*by_angle([[0.0, math.pi / 3], [math.pi / 2, math.pi]])).divergence_BHW
    torch.testing.assert_close(d_BHW, torch.tensor([[[0.0, 0.5], [1.0, 2.0]]]), rtol=0, atol=1e-6)


def test_divergence_is_float32_whatever_comes_in(draw):
    rgb, thermal = draw(1, 2, 3, 8), draw(1, 2, 3, 8, seed=1)
    d_BHW = mask()(rgb.bfloat16(), thermal.bfloat16()).divergence_BHW
    assert d_BHW.dtype == torch.float32
    expected = 1 - F.cosine_similarity(rgb.bfloat16().float(), thermal.bfloat16().float(), dim=-1)
    torch.testing.assert_close(d_BHW, expected)


@pytest.mark.parametrize("ratio", [0.01, 0.3, 0.5, 0.51, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (1, 3), (3, 5), (8, 8)])
def test_count_is_the_ceiling(draw, size, ratio):
    out = mask(ratio=ratio)(draw(2, *size, 4), draw(2, *size, 4, seed=1))
    count = math.ceil(ratio * size[0] * size[1])
    assert out.index_BK.shape == (2, count)
    assert out.mask().sum(dim=(1, 2)).tolist() == [count, count]
    assert set(out.mask().unique().tolist()) <= {0.0, 1.0}


def test_selects_the_largest():
    out = mask(ratio=0.5)(*by_angle([[0.1, 2.0, 0.3], [1.5, 0.2, 3.0]]))
    assert out.mask()[0].tolist() == [[0, 1, 0], [1, 0, 1]]
    assert out.index_BK.tolist() == [[1, 3, 5]]


def test_may_select_the_smallest():
    out = mask(ratio=0.5, select="least")(*by_angle([[0.1, 2.0, 0.3], [1.5, 0.2, 3.0]]))
    assert out.mask()[0].tolist() == [[1, 0, 1], [0, 1, 0]]


def test_each_image_has_its_own_selection():
    one, two = by_angle([[0.0, 1.0]]), by_angle([[3.0, 2.0]])
    out = mask()(*(torch.cat(pair) for pair in zip(one, two, strict=True)))
    assert out.index_BK.tolist() == [[1], [0]]


def test_straight_through_gradient_is_that_of_the_divergence_where_selected(draw):
    rgb, thermal = (draw(2, 3, 4, 6, seed=s, dtype=torch.float64).requires_grad_() for s in (0, 1))
    weight_BP = draw(2, 12, seed=2)
    out = mask()(rgb, thermal)
    assert torch.equal(out.gate_BP.detach(), out.mask().flatten(1))
    got = torch.autograd.grad((out.gate_BP * weight_BP).sum(), (rgb, thermal))

    d_BHW = 1 - (rgb * thermal).sum(-1) / (rgb.norm(dim=-1) * thermal.norm(dim=-1))
    expected = torch.autograd.grad((d_BHW * out.mask() * weight_BP.view(2, 3, 4)).sum(), (rgb, thermal))
    for grad, expected_grad in zip(got, expected, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-6)
        dropped = out.mask() == 0
        assert dropped.any() and not grad[dropped].any() and grad[~dropped].any()


def test_raising_the_multiplier_raises_the_divergence():
    """A step up the gradient of the multiplier moves the modalities apart, in the sense of the selection."""
    rgb, thermal = (x.requires_grad_() for x in by_angle([[0.5, 1.0]]))
    out = mask()(rgb, thermal)
    (grad,) = torch.autograd.grad(out.gate_BP.sum(), thermal)
    after = mask()(rgb, thermal + 0.01 * grad).divergence_BHW
    assert after[0, 0, 1] > out.divergence_BHW[0, 0, 1] and after[0, 0, 0] == out.divergence_BHW[0, 0, 0]


def test_soft_mode_is_a_sigmoid_of_a_learned_affine(draw):
    module = mask(mode="soft")
    with torch.no_grad():
        module.affine.copy_(torch.tensor([2.0, -0.5]))
    rgb, thermal = draw(1, 2, 3, 4), draw(1, 2, 3, 4, seed=1).requires_grad_()
    out = module(rgb, thermal)
    torch.testing.assert_close(out.gate_BP, torch.sigmoid(2 * out.divergence_BHW - 0.5).flatten(1))
    assert out.index_BK is None
    out.gate_BP.sum().backward()
    assert module.affine.grad.ne(0).all() and thermal.grad.any()


def test_none_mode_takes_all(draw):
    out = mask(mode="none")(draw(1, 2, 3, 4), draw(1, 2, 3, 4, seed=1))
    assert out.gate_BP.eq(1).all() and out.index_BK is None
    assert not list(mask(mode="none").parameters())


def test_zero_features_have_a_finite_gradient():
    rgb = torch.zeros(1, 2, 2, 4, requires_grad=True)
    out = mask()(rgb, torch.ones(1, 2, 2, 4))
    out.gate_BP.sum().backward()
    assert out.divergence_BHW.isfinite().all() and rgb.grad.isfinite().all()


@pytest.mark.parametrize("bad", [{"ratio": 0}, {"ratio": 1.1}, {"mode": "hard"}])
def test_options_out_of_range(bad):
    with pytest.raises(ValidationError):
        DivergenceOptions(**bad)


def test_a_projection_is_what_is_compared(draw):
    torch.manual_seed(0)
    module, rgb, thermal = mask(8, projection=3), draw(2, 3, 5, 8), draw(2, 3, 5, 8, seed=1)
    projected = [F.linear(x, layer.weight) for x, layer in zip((rgb, thermal), module.project, strict=True)]
    d_BHW = module(rgb, thermal).divergence_BHW
    torch.testing.assert_close(d_BHW, 1 - F.cosine_similarity(*projected, dim=-1))


def test_gradients_everywhere_change_no_value(draw):
    rgb, thermal = draw(2, 3, 5, 8).requires_grad_(), draw(2, 3, 5, 8, seed=1)
    some, everywhere = mask(8)(rgb, thermal), mask(8, gradient="all")(rgb, thermal)
    assert torch.equal(some.mask(), everywhere.mask()) and everywhere.index_BK is None
    weight_BP = draw(2, 15, seed=2)
    (grad,) = torch.autograd.grad((everywhere.gate_BP * weight_BP).sum(), rgb, retain_graph=True)
    (expected,) = torch.autograd.grad((everywhere.divergence_BHW.flatten(1) * weight_BP).sum(), rgb)
    torch.testing.assert_close(grad, expected)
    (grad,) = torch.autograd.grad((some.gate_BP * weight_BP).sum(), rgb)
    selected = some.mask() > 0.5
    torch.testing.assert_close(grad[selected], expected[selected])
    assert not grad[~selected].any()


def test_only_what_shows_something_is_ranked():
    """Of six positions two are padding, with the largest divergence: two of the other four are selected."""
    rgb, thermal = by_angle([[3.1, 3.0, 0.3], [0.1, 0.2, 0.4]])
    seen_BHW = torch.tensor([[[False, False, True], [True, True, True]]])
    ranked, left_out = mask()(rgb, thermal), mask(padding="left_out")(rgb, thermal, seen_BHW)
    assert ranked.mask()[0].tolist() == [[1, 1, 0], [0, 0, 1]]
    assert left_out.mask()[0].tolist() == [[0, 0, 1], [0, 0, 1]]
    assert {2, 5} <= set(left_out.index_BK[0].tolist())


def test_each_image_ranks_what_it_shows(draw):
    """By hand: the ceil(ratio * seen) largest of each image, also where nothing or everything is seen."""
    rgb, thermal = draw(3, 5, 6, 8), draw(3, 5, 6, 8, seed=1)
    seen_BHW = draw(3, 5, 6, 1, seed=2)[..., 0] > 0
    seen_BHW[1], seen_BHW[2] = True, False
    out = mask(ratio=0.3, padding="left_out")(rgb, thermal, seen_BHW)
    for image in range(3):
        d_P, seen_P = out.divergence_BHW[image].flatten(), seen_BHW[image].flatten()
        best = sorted(seen_P.nonzero().flatten().tolist(), key=lambda place: -d_P[place].item())
        expected = best[: math.ceil(0.3 * len(best))]
        assert out.mask()[image].flatten().nonzero().flatten().tolist() == sorted(expected)
        assert set(expected) <= set(out.index_BK[image].tolist())
    assert torch.equal(mask(ratio=0.3)(rgb, thermal).mask()[1], out.mask()[1])


def test_a_soft_mask_starts_where_it_is_told():
    rgb, thermal = by_angle([[0.0, math.pi / 2, math.pi]])
    for start in ((1.0, 0.0), (0.5, 2.0)):
        expected = torch.sigmoid(start[0] * torch.tensor([0.0, 1.0, 2.0]) + start[1])
        torch.testing.assert_close(mask(mode="soft", soft_start=start)(rgb, thermal).mask()[0, 0], expected)
