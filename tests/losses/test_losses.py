from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mdg.config import RunConfig
from mdg.losses import Objective
from mdg.models import SegmentationOutput
from mdg.registry import LOSSES

IGNORE = 255
LOSS_NAMES = ["CrossEntropy", "Dice", "OhemCrossEntropy"]


def loss(name: str, classes: int = 4, **options):
    return LOSSES.create({"type": name, **options}, num_classes=classes, ignore_index=IGNORE)


def sample(classes: int = 4, size=(2, 5, 6), ignored: float = 0.2, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(size[0], classes, *size[1:], generator=generator)
    label = torch.randint(classes, size, generator=generator)
    label[torch.rand(size, generator=generator) < ignored] = IGNORE
    return logits.requires_grad_(), label


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_all_ignored_is_zero_with_a_zero_gradient(name):
    logits, label = sample()
    value = loss(name)(logits, torch.full_like(label, IGNORE))
    value.backward()
    assert value == 0 and not logits.grad.any() and logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_ignored_pixels_have_no_gradient_and_no_say(name):
    logits, label = sample()
    value = loss(name, **({"min_kept": 1.0} if "Ohem" in name else {}))(logits, label)
    value.backward()
    ignored = (label == IGNORE)[:, None].expand_as(logits)
    assert ignored.any() and not logits.grad[ignored].any() and logits.grad[~ignored].any()
    other = loss(name, **({"min_kept": 1.0} if "Ohem" in name else {}))(torch.where(ignored, 7.0, logits), label)
    torch.testing.assert_close(other, value)


@pytest.mark.parametrize("name", LOSS_NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_give_a_float32_scalar(name, dtype):
    logits, label = sample()
    value = loss(name)(logits.detach().to(dtype), label)
    assert value.dtype == torch.float32 and value.shape == ()
    torch.testing.assert_close(value, loss(name)(logits.detach().to(dtype).float(), label))


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_extreme_logits_are_finite(name):
    logits, label = sample()
    value = loss(name)(1e4 * logits, label)
    value.backward()
    assert value.isfinite() and logits.grad.isfinite().all()


# --- cross-entropy -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("ignored", [0.0, 0.4])
def test_cross_entropy_equals_torch(smoothing, ignored):
    logits, label = sample(ignored=ignored)
    expected = F.cross_entropy(logits, label, ignore_index=IGNORE, label_smoothing=smoothing)
    torch.testing.assert_close(loss("CrossEntropy", label_smoothing=smoothing)(logits, label), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_with_class_weights_equals_torch(smoothing):
    logits, label = sample()
    weights = [0.5, 2.0, 0.0, 1.0]
    expected = F.cross_entropy(logits, label, torch.tensor(weights), ignore_index=IGNORE, label_smoothing=smoothing)
    got = loss("CrossEntropy", label_smoothing=smoothing, class_weights=weights)(logits, label)
    torch.testing.assert_close(got, expected)


def test_smoothing_by_hand():
    logits = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
    log_p = logits.log_softmax(1).flatten()
    got = loss("CrossEntropy", 2, label_smoothing=0.2)(logits, torch.tensor([[[1]]]))
    torch.testing.assert_close(got, -(0.1 * log_p[0] + 0.9 * log_p[1]))


def test_only_pixels_of_weight_zero_give_zero():
    logits, label = sample()
    value = loss("CrossEntropy", class_weights=[0.0, 1, 1, 1])(logits, torch.zeros_like(label))
    value.backward()
    assert value == 0 and logits.grad.isfinite().all()


@pytest.mark.parametrize("weights", [[1.0], [1.0] * 5, [-1.0, 1, 1, 1], [0.0] * 4, []])
def test_class_weights_that_do_not_fit(weights):
    with pytest.raises(ValueError, match="class_weights: expected 4 numbers"):
        loss("CrossEntropy", class_weights=weights)


# --- Dice --------------------------------------------------------------------------------------------------------


def test_dice_by_hand():
    """Two classes, three pixels and an ignored one; probabilities of class 0: 0.9, 0.6, 0.2, labels 0, 1, 1."""
    p = torch.tensor([0.9, 0.6, 0.2, 0.5])
    logits = torch.stack([p.log(), (1 - p).log()]).view(1, 2, 2, 2)
    label = torch.tensor([[[0, 1], [1, IGNORE]]])
    zero = (2 * 0.9 + 1) / (0.9 + 0.6 + 0.2 + 1 + 1)
    one = (2 * (0.4 + 0.8) + 1) / (0.1 + 0.4 + 0.8 + 2 + 1)
    assert loss("Dice", 2)(logits, label).item() == pytest.approx(1 - (zero + one) / 2)
    smooth = 1 - ((2 * 0.9) / (1.7 + 1) + (2 * 1.2) / (1.3 + 2)) / 2
    assert loss("Dice", 2, smooth=0)(logits, label).item() == pytest.approx(smooth)


def test_dice_counts_present_classes_only():
    logits = torch.zeros(1, 3, 1, 2)
    assert loss("Dice", 3, smooth=0)(logits, torch.zeros(1, 1, 2).long()).item() == pytest.approx(1 - 4 / 3 / (8 / 3))


def test_dice_of_a_perfect_and_an_opposite_prediction():
    label = torch.tensor([[[0, 1, 1, 0]]])
    perfect = 100.0 * F.one_hot(label, 2).permute(0, 3, 1, 2)
    assert loss("Dice", 2)(perfect, label).item() == pytest.approx(0, abs=1e-6)
    assert loss("Dice", 2, smooth=0)(-perfect, label).item() == pytest.approx(1, abs=1e-6)


# --- OHEM --------------------------------------------------------------------------------------------------------


def ohem(logits: Tensor, label: Tensor, threshold: float, min_kept: float) -> float:
    """Pixel losses, the hardest first: those of a probability below the threshold, but ``kept`` at least."""
    kept = max(1, int(min_kept * label.numel()))
    log_p = logits.detach().log_softmax(1)
    places = [tuple(place.tolist()) for place in (label != IGNORE).nonzero()]
    losses = sorted((-log_p[b, label[b, y, x], y, x].item() for b, y, x in places), reverse=True)
    hard = [value for value in losses if math.exp(-value) <= threshold]
    chosen = hard if len(hard) >= kept else losses[:kept]
    return sum(chosen) / len(chosen)


@pytest.mark.parametrize("threshold", [0.01, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("min_kept", [1e-9, 1 / 16, 0.5, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_ohem_equals_brute_force(threshold, min_kept, seed):
    logits, label = sample(seed=seed)
    got = loss("OhemCrossEntropy", threshold=threshold, min_kept=min_kept)(logits, label)
    assert got.item() == pytest.approx(ohem(logits, label, threshold, min_kept), rel=1e-5)


def test_ohem_with_threshold_one_and_all_kept_is_cross_entropy():
    logits, label = sample()
    torch.testing.assert_close(
        loss("OhemCrossEntropy", threshold=1.0)(logits, label), loss("CrossEntropy")(logits, label)
    )


def test_ohem_with_fewer_labelled_pixels_than_are_kept():
    logits, label = sample()
    label.fill_(IGNORE)[0, 0, 0] = 1
    expected = F.cross_entropy(logits[:1, :, 0, 0], label[:1, 0, 0])
    torch.testing.assert_close(loss("OhemCrossEntropy", min_kept=1.0)(logits, label), expected)


# --- objective ---------------------------------------------------------------------------------------------------


def objective(**options) -> Objective:
    config = RunConfig(data="Synthetic", **options)
    return Objective(config.loss, config.auxiliary_loss, num_classes=4, ignore_index=IGNORE)


def outputs(size=(6, 8), auxiliary: int = 2, seed: int = 1) -> SegmentationOutput:
    generator = torch.Generator().manual_seed(seed)
    quarter = [-(-side // 4) for side in size]
    heads = tuple(torch.randn(2, 4, *quarter, generator=generator) for _ in range(auxiliary))
    return SegmentationOutput(torch.randn(2, 4, *size, generator=generator), heads)


def test_published_objective():
    _, label = sample(size=(2, 6, 8))
    output = outputs()
    total, terms = objective()(output, label)
    rgb, thermal = (
        F.cross_entropy(F.interpolate(x, size=(6, 8), mode="bilinear", align_corners=False), label, ignore_index=IGNORE)
        for x in output.auxiliary
    )
    main = F.cross_entropy(output.logits, label, ignore_index=IGNORE, label_smoothing=0.1)
    dice = loss("Dice")(output.logits, label)
    torch.testing.assert_close(total, 0.5 * dice + 0.5 * main + 0.3 * rgb + 0.3 * thermal)
    assert set(terms) == {"Dice", "CrossEntropy", "aux_rgb", "aux_thermal"}
    torch.testing.assert_close(terms["CrossEntropy"], main)
    torch.testing.assert_close(terms["aux_thermal"], thermal)


def test_without_auxiliary_heads_the_main_terms_remain():
    _, label = sample(size=(2, 6, 8))
    total, terms = objective()(outputs(auxiliary=0), label)
    assert set(terms) == {"Dice", "CrossEntropy"}
    torch.testing.assert_close(total, 0.5 * terms["Dice"] + 0.5 * terms["CrossEntropy"])


def test_two_terms_of_one_type_both_count():
    _, label = sample(size=(2, 6, 8))
    output = outputs(auxiliary=0)
    terms = [{"type": "CrossEntropy", "weight": 0.25}, {"type": "CrossEntropy", "weight": 2.0, "label_smoothing": 0.5}]
    total, named = objective(loss=terms)(output, label)
    plain, smooth = (
        loss("CrossEntropy")(output.logits, label),
        loss("CrossEntropy", label_smoothing=0.5)(output.logits, label),
    )
    torch.testing.assert_close(total, 0.25 * plain + 2 * smooth)
    assert len(named) == 2


def test_logits_are_resized_to_the_label():
    _, label = sample(size=(2, 12, 16))
    output = outputs()
    total, _ = objective(loss=["CrossEntropy"], auxiliary_loss={"type": "Dice", "weight": 0.0})(output, label)
    resized = F.interpolate(output.logits, size=(12, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(total, F.cross_entropy(resized, label, ignore_index=IGNORE))


def test_terms_carry_no_gradient():
    logits, label = sample(size=(2, 6, 8))
    total, terms = objective()(SegmentationOutput(logits), label)
    assert total.requires_grad and not any(term.requires_grad for term in terms.values())


# OHEM sums by the same function as the cross-entropy.
@pytest.mark.parametrize("name", ["CrossEntropy", "Dice", pytest.param("OhemCrossEntropy", marks=pytest.mark.slow)])
# The other order in memory is as slow and sums alike.
@pytest.mark.parametrize("channels_last", [pytest.param(False, marks=pytest.mark.slow), True])
def test_many_pixels_are_summed_as_exactly_as_few(name, channels_last):
    """Against float64, at 18 million pixels: added one by one, float32 stands still at 2^24."""
    generator, times = torch.Generator().manual_seed(0), 12
    part_logits = torch.randn(2, 2, 250, 3000, generator=generator)
    part = (torch.rand(2, 250, 3000, generator=generator) < 0.01).long()
    part[:, :8] = IGNORE
    logits, label = part_logits.repeat(1, 1, times, 1), part.repeat(1, times, 1)
    term = loss(name, classes=2, **({"min_kept": 1.0} if "Ohem" in name else {}))
    value = term(logits.contiguous(memory_format=torch.channels_last) if channels_last else logits, label)
    probability, valid = part_logits.double().softmax(dim=1), part != IGNORE  # every part is the same
    if name == "Dice":
        own = [part == k for k in range(2)]
        overlap = times * torch.stack([probability[:, k][own[k]].sum() for k in range(2)])
        total = (probability * valid[:, None]).sum(dim=(0, 2, 3)) + torch.stack([mask.sum() for mask in own])
        total = times * total
        expected = (1 - (2 * overlap + 1) / (total + 1)).mean()
    else:
        true = probability.gather(1, part.where(valid, 0)[:, None])[:, 0]
        expected = -true.log()[valid].mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
