"""Learning without labels: by hand, against loops, and that nothing flows back to who says a class."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mdg.losses.pseudo_labels import (
    affinity_divergence,
    cross_pseudo_supervision,
    feature_distance,
    pseudo_cross_entropy,
    ramp,
)


def views(draw, count: int = 3, size: tuple[int, int] = (4, 5), classes: int = 3) -> list[torch.Tensor]:
    return [draw(2, classes, *size, seed=seed).mul(3).requires_grad_() for seed in range(count)]


def test_weighted_mean_and_mean_by_class(draw):
    logits = draw(1, 2, 1, 3)
    target, weight = torch.tensor([[[0, 1, 1]]]), torch.tensor([[[1.0, 0.5, 0.0]]])
    each = F.cross_entropy(logits, target, reduction="none")[0, 0]
    plain = (each[0] + 0.5 * each[1]) / 1.5
    assert pseudo_cross_entropy(logits, target, weight).item() == pytest.approx(plain.item())
    by_class = (each[0] + each[1]) / 2
    assert pseudo_cross_entropy(logits, target, weight, class_balance=True).item() == pytest.approx(by_class.item())
    assert pseudo_cross_entropy(logits, target, torch.zeros(1, 1, 3)).item() == 0
    assert pseudo_cross_entropy(logits, target, torch.zeros(1, 1, 3), class_balance=True).item() == 0


@pytest.mark.parametrize("threshold", [0.0, 0.8])
@pytest.mark.parametrize("agreement", [False, True])
def test_each_view_learns_from_the_others(draw, threshold, agreement):
    """Against a loop over views, images and pixels in float64."""
    logits, seen = views(draw), torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(3)) > 0.3
    found = cross_pseudo_supervision(logits, seen, threshold=threshold, agreement=agreement)
    probable = [view.detach().double().softmax(1) for view in logits]
    total = 0.0
    for learner in range(3):
        others = [view for view in range(3) if view != learner]
        for other in others:
            losses = []
            for b in range(2):
                for y in range(4):
                    for x in range(5):
                        said = [int(probable[view][b, :, y, x].argmax()) for view in others]
                        sure = float(probable[other][b, :, y, x].max())
                        if seen[b, y, x] and sure >= threshold and (not agreement or len(set(said)) == 1):
                            target = int(probable[other][b, :, y, x].argmax())
                            losses.append(-math.log(float(probable[learner][b, target, y, x])))
            total += sum(losses) / len(losses) if losses else 0.0
    assert found.item() == pytest.approx(total, rel=1e-5)


def test_pixels_that_nobody_saw_change_nothing(draw):
    """Neither the loss nor a gradient, whatever is there."""
    seen = torch.ones(2, 4, 5, dtype=torch.bool)
    seen[:, :2] = False
    results = []
    for there in (0.0, 100.0):
        logits = [view.detach().clone() for view in views(draw)]
        for view in logits:
            view[:, 1, :2] += there
            view.requires_grad_()
        loss = cross_pseudo_supervision(logits, seen, threshold=0.4, agreement=True, class_balance=True)
        loss.backward()
        results.append((loss.item(), [view.grad.clone() for view in logits]))
    assert results[0][0] == results[1][0]
    for one, other in zip(*(grads for _, grads in results), strict=True):
        assert torch.equal(one[:, :, 2:], other[:, :, 2:])
        assert not one[:, :, :2].any() and not other[:, :, :2].any()


def test_no_gradient_reaches_who_says_the_class(draw):
    """With one view that learns and one that is only asked."""
    learner, teacher = views(draw, 2)
    target = teacher.argmax(1)
    alone = torch.autograd.grad(
        pseudo_cross_entropy(learner, target, torch.ones(2, 4, 5)), [learner, teacher], allow_unused=True
    )
    both = torch.autograd.grad(
        cross_pseudo_supervision([learner, teacher], torch.ones(2, 4, 5, dtype=torch.bool)), [learner, teacher]
    )
    torch.testing.assert_close(both[0], alone[0])
    assert alone[1] is None
    own = torch.autograd.grad(pseudo_cross_entropy(teacher, learner.argmax(1), torch.ones(2, 4, 5)), teacher)[0]
    torch.testing.assert_close(both[1], own)  # its own share alone


def test_reliability_weighs_pixels(draw):
    logits, seen = views(draw), torch.ones(2, 4, 5, dtype=torch.bool)
    halves = torch.zeros(2, 4, 5)
    halves[:, :2] = 1
    weighed = cross_pseudo_supervision(logits, seen, reliability_BHW=halves)
    cut = cross_pseudo_supervision([view[:, :, :2] for view in logits], seen[:, :2])
    torch.testing.assert_close(weighed, cut)


def test_maps_are_learnt_by_the_learner_alone(draw):
    learner, teacher = (draw(2, 3, 4, 6, seed=seed).requires_grad_() for seed in range(2))
    for measure in (feature_distance, affinity_divergence):
        value = measure(learner, teacher)
        gradients = torch.autograd.grad(value, [learner, teacher], allow_unused=True)
        assert value > 0 and gradients[0].abs().sum() > 0 and gradients[1] is None
        assert measure(teacher, teacher).item() == pytest.approx(0, abs=1e-6)
    assert feature_distance(learner, teacher).item() == pytest.approx((learner - teacher).square().mean().item())


def test_affinities_by_hand():
    """Two positions: rows of a 2x2 softmax; the mean over rows, not over entries; widths may differ."""
    learner, teacher = torch.tensor([[[[1.0], [2.0]]]]), torch.tensor([[[[2.0, 0.0], [0.0, 0.0]]]])
    rows = [torch.tensor([[1.0, 2.0], [2.0, 4.0]]), torch.tensor([[4.0, 0.0], [0.0, 0.0]]) / math.sqrt(2)]
    own, other = (row.double().softmax(-1) for row in rows)
    expected = float((other * (other / own).log()).sum(-1).mean())
    assert affinity_divergence(learner, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_the_ramp():
    assert ramp(0, 0) == 1 and ramp(7, 5) == 1 and ramp(5, 5) == 1
    assert ramp(0, 5) == pytest.approx(math.exp(-5)) and ramp(2.5, 5) == pytest.approx(math.exp(-1.25))
