"""Views against plain loops: one view, scales, mirroring, precision, and the words for all of them.

Legend: B batch, K classes, H W image.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from known_models import SLIDE, Pointwise, Quarter, Watched, images, make, slide_by_hand, tiny

from mdg.config import load_config
from mdg.config.schema import EvalConfig
from mdg.data.transforms.resampling import resize_image
from mdg.engine.inference import View, describe_inference
from mdg.errors import ConfigError, NonFiniteError
from mdg.models.segmentor import SegmentationOutput

# --- one view ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(33, 47), (40, 40), (17, 90)])
def test_one_view_is_the_argmax_of_resized_logits(size):
    model, pair = tiny(), images(2, 33, 47)
    with torch.inference_mode():
        expected = F.interpolate(model(*pair).logits, size=size, mode="bilinear", align_corners=False)
    inference = make(model)
    scores, prediction = inference.scores(*pair, size), inference(*pair, size)
    assert torch.equal(scores, expected) and torch.equal(prediction, expected.argmax(1))
    assert prediction.dtype == torch.int64 and prediction.shape == (2, *size)
    assert torch.equal(inference.explain(*pair, size)[0], prediction)


def test_logits_are_resized_once_from_their_own_size():
    model, pair = Quarter(tiny()), images(1, 33, 47)
    with torch.inference_mode():
        expected = F.interpolate(model(*pair).logits, size=(50, 60), mode="bilinear", align_corners=False)
    assert torch.equal(make(model).scores(*pair, (50, 60)), expected)


# --- scales and mirroring ------------------------------------------------------------------------------------------


def augmented_by_hand(model: Callable, pair: tuple, size: tuple, scales: list, flip: bool) -> np.ndarray:
    """Mean softmax over views, each computed on its own in float64."""
    views = []
    for scale in scales:
        for mirrored in (False, True) if flip else (False,):
            resized = [resize_image(image, [round(scale * side) for side in image.shape[-2:]]) for image in pair]
            if mirrored:
                resized = [torch.from_numpy(image.numpy()[..., ::-1].copy()) for image in resized]
            logits = torch.as_tensor(model(*resized)).double()
            logits = logits.flip(-1) if mirrored else logits
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False).numpy()
            exponents = np.exp(logits - logits.max(1, keepdims=True))
            views.append(exponents / exponents.sum(1, keepdims=True))
    return np.mean(views, axis=0)


@pytest.mark.parametrize("slide", [False, True])
@pytest.mark.parametrize(
    "scales, flip", [([1.0], True), ([0.5, 1, 1.75], False), ([0.5, 1.25], True), ([0.3, 2.0], True)]
)
def test_views_are_averaged_with_equal_weight(scales, flip, slide):
    model, pair, size = tiny(), images(2, 37, 51), (40, 44)

    def one_view(rgb, thermal):
        if slide:
            return slide_by_hand(model, rgb, thermal, [16, 20], [11, 13])
        with torch.no_grad():
            return model(rgb, thermal).logits

    options = {**SLIDE, "batch_size": 4} if slide else {}
    inference = make(model, scales=scales, flip=flip, **options)
    scores = inference.scores(*pair, size)
    np.testing.assert_allclose(scores.numpy(), augmented_by_hand(one_view, pair, size, scales, flip), atol=1e-5)
    np.testing.assert_allclose(scores.sum(1).numpy(), 1, atol=1e-5)
    assert torch.equal(inference(*pair, size), scores.argmax(1))
    assert not torch.allclose(scores, make(model, **options).scores(*pair, size).softmax(1), atol=1e-2)


def test_mirroring_changes_nothing_where_neighbours_do_not_count():
    pair = images(2, 37, 51)
    plain = make(Pointwise()).scores(*pair, (37, 51)).softmax(1)
    assert torch.equal(make(Pointwise(), flip=True).scores(*pair, (37, 51)), plain)


def test_one_scale_alone_needs_no_softmax():
    model, pair = tiny(), images(1, 40, 60)
    half = make(model, scales=[0.5]).scores(*pair, (40, 60))
    assert half.min() < 0  # logits
    expected = augmented_by_hand(lambda *pair: model(*pair).logits.detach(), pair, (40, 60), [0.5], False)
    np.testing.assert_allclose(half.softmax(1).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("options", [{}, SLIDE])
def test_the_modalities_stay_aligned(options):
    def aligned(rgb, thermal):
        assert torch.equal(rgb[:, :1], thermal) and rgb.dtype == thermal.dtype == torch.uint8
        return SegmentationOutput(rgb.float())

    rgb, _ = images(2, 37, 51)
    make(aligned, scales=[0.5, 1, 1.3], flip=True, **options)(rgb, rgb[:, :1], (37, 51))


def test_images_of_every_scale_have_a_pixel_at_least():
    model = Watched(Pointwise())
    make(model, scales=[0.1, 1.5])(*images(1, 3, 25), (3, 25))
    assert model.shapes == [(1, 3, 1, 2), (1, 3, 4, 38)]


@pytest.mark.parametrize("options", [{}, SLIDE])
def test_one_pass_is_let_go_before_the_next(options):
    model = Watched(tiny())
    make(model, scales=[0.5, 1], flip=True, **options)(*images(1, 37, 51), (37, 51))
    assert len(model.shapes) >= 4


@pytest.mark.parametrize("options", [{}, SLIDE, {"scales": [0.5, 1], "flip": True}])
def test_bfloat16_is_for_the_network_only(options):
    pair, size = images(2, 37, 51), (40, 44)
    full, half = (make(tiny(), precision, **options).scores(*pair, size) for precision in (None, torch.bfloat16))
    assert full.dtype == half.dtype == torch.float32
    assert not torch.equal(full, half)
    torch.testing.assert_close(full, half, atol=0.02, rtol=0.02)


# --- logits that are not finite ------------------------------------------------------------------------------------

MODES = [{}, SLIDE, {"flip": True}, {"scales": [0.5]}, {"scales": [0.5, 1], "flip": True, **SLIDE}]


def poisoned(value: float, only: int = 255) -> Callable:
    """A network that gives one ``value`` among finite logits for images whose first pixel is ``only``."""

    def model(rgb, thermal):
        logits = rgb[:, :, ::2, ::2].float()
        logits[rgb[:, 0].amin((1, 2)) == only, 1, -1, -1] = value
        return SegmentationOutput(logits)

    return model


@pytest.mark.parametrize("options", MODES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_are_an_error_that_names_the_frames(options, value):
    rgb, thermal = images(3, 37, 51)
    rgb[1] = 255
    inference = make(poisoned(value), **options)
    for call in (inference, inference.scores, inference.explain):
        with pytest.raises(NonFiniteError, match=r"not finite for b: there is no prediction"):
            call(rgb, thermal, (37, 51), ["a", "b", "c"])
    with pytest.raises(NonFiniteError, match="not finite for image 1 of the batch"):
        inference(rgb, thermal, (37, 51))
    inference(rgb[::2], thermal[::2], (37, 51), ["a", "c"])  # the others are as they were


@pytest.mark.parametrize("options", MODES)
def test_large_logits_are_finite(options):
    pair = images(2, 37, 51)
    inference = make(lambda rgb, thermal: SegmentationOutput(rgb.float() * 1e30), **options)
    assert inference(*pair, (37, 51)).shape == (2, 37, 51)


def test_an_overflow_of_half_precision_is_seen():
    def model(rgb, thermal):
        return SegmentationOutput((rgb.float() * 1e3).half())  # 255e3 is above the largest number of fp16

    with pytest.raises(NonFiniteError, match="fp32"):
        make(model)(*images(1, 8, 8), (8, 8))


# --- words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, mode, augmentation",
    [
        ({}, "whole image", "none"),
        (
            {"mode": "slide", "window": [480, 640], "scales": [1.5, 0.5, 1], "flip": True},
            "sliding window 480x640, stride 320x427",
            "scales 0.5, 1, 1.5 with flip, mean of softmax",
        ),
        (
            {"mode": "slide", "window": [9, 9], "stride": [9, 3]},
            "sliding window 9x9, stride 9x3",
            "none",
        ),
        ({"flip": True}, "whole image", "scale 1 with flip, mean of softmax"),
        ({"scales": [0.75]}, "whole image", "scale 0.75"),
        ({"scales": [0.75, 1.25]}, "whole image", "scales 0.75, 1.25, mean of softmax"),
    ],
)
def test_the_rule_in_words(options, mode, augmentation):
    assert describe_inference(EvalConfig(**options)) == (mode, augmentation)
    assert make(Pointwise(), **options).describe() == (mode, augmentation)


def test_views_and_defaults():
    assert make(Pointwise()).views == [View(1, False)]
    assert make(Pointwise(), scales=[2, 0.5], flip=True).views == [(0.5, False), (0.5, True), (2, False), (2, True)]
    assert EvalConfig(mode="slide", window=[1, 2]).stride_or_default == (1, 1)
    assert EvalConfig().stride_or_default is None


@pytest.mark.parametrize(
    "opts, words",
    [
        (["eval.mode=slide"], ["eval.window: got None", "eval.mode is 'slide'", "eval.window: [480, 640]"]),
        (["eval.window=[32, 32]"], ["eval.window: got", "would not be used", "set eval.mode: slide"]),
        (["eval.stride=[4, 4]"], ["eval.stride: got", "would not be used", "this key to null"]),
        (
            ["eval={mode: slide, window: [32, 40], stride: [32, 41]}"],
            ["eval.stride: got", "41", "at most eval.window [32, 40]", "smaller stride"],
        ),
        (["eval={mode: slide, stride: [4, 4]}"], ["eval.window: got None"]),
        (["eval={mode: slide, window: [32]}"], ["eval.window"]),
        (["eval={mode: slide, window: [32, 0]}"], ["eval.window.1", "greater than or equal to 1"]),
        (["eval.scales=[]"], ["eval.scales", "at least 1"]),
        (["eval.scales=[1, 1.0]"], ["eval.scales", "every scale once"]),
        (["eval.scales=[1, 0]"], ["eval.scales.1", "greater than 0"]),
        (["eval.scales=[4.5]"], ["eval.scales.0", "less than or equal to 4"]),
        (["eval.mode=tiles"], ["eval.mode", "'whole' or 'slide'"]),
    ],
)
def test_mistakes_are_messages(tiny_yaml, opts, words):
    with pytest.raises(ConfigError) as caught:
        load_config(tiny_yaml, opts)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
