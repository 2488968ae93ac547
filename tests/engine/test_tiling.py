"""Sliding windows against plain loops, and where they change nothing.

Legend: H W image.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from known_models import SLIDE, Pointwise, Quarter, Watched, images, make, slide_by_hand, tiny

from mdg.engine.inference import window_starts


def test_windows_cover_every_length_and_begin_at_every_stride():
    for length in range(1, 30):
        for window in range(1, length + 1):
            for stride in range(1, window + 1):
                starts = window_starts(length, window, stride)
                seen = {place for start in starts for place in range(start, start + window)}
                count = -(-(length - window) // stride) + 1  # the fewest that can cover it
                assert seen == set(range(length)) and len(starts) == count
                assert starts == [min(n * stride, length - window) for n in range(count)]


def test_hand_computed_places():
    assert window_starts(480, 480, 320) == [0]
    assert window_starts(10, 4, 3) == [0, 3, 6]
    assert window_starts(11, 4, 3) == [0, 3, 6, 7]


@pytest.mark.parametrize(
    "options",
    [
        {"window": [16, 20]},
        {"window": [16, 20], "stride": [5, 7]},
        {"window": [64, 20]},
        {"window": [16, 99], "stride": [16, 99]},
        {"window": [100, 100]},
        {"window": [1, 1]},
    ],
)
def test_sliding_changes_nothing_where_context_does_not_count(options):
    pair = images(2, 37, 51)
    whole, slide = make(Pointwise()), make(Pointwise(), mode="slide", batch_size=3, **options)
    for size in ((37, 51), (60, 45)):
        assert torch.equal(slide.scores(*pair, size), whole.scores(*pair, size))


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
@pytest.mark.parametrize(
    "window, stride", [([16, 20], None), ([16, 20], [7, 9]), ([64, 20], [30, 20]), ([13, 80], [4, 80])]
)
def test_sliding_is_the_mean_over_windows(window, stride, batch_size):
    model, pair = tiny(), images(3, 37, 51)
    used = stride or [round(2 * side / 3) for side in window]
    slide = make(model, mode="slide", window=window, stride=stride, batch_size=batch_size)
    scores = slide.scores(*pair, (37, 51))
    np.testing.assert_allclose(scores.numpy(), slide_by_hand(model, *pair, window, used), atol=1e-6)
    assert not torch.allclose(scores, make(model).scores(*pair, (37, 51)), atol=1e-3), "context counts for this model"
    larger = F.interpolate(scores, size=(50, 60), mode="bilinear", align_corners=False)
    assert torch.equal(slide.scores(*pair, (50, 60)), larger)


def test_smaller_logits_are_resized_to_their_window():
    model, pair = Quarter(tiny()), images(1, 37, 51)
    scores = make(model, **SLIDE, stride=[10, 10]).scores(*pair, (37, 51))
    np.testing.assert_allclose(scores.numpy(), slide_by_hand(model, *pair, [16, 20], [10, 10]), atol=1e-6)


@pytest.mark.parametrize("batch_size, largest", [(1, 1), (4, 4), (99, 24)])
def test_windows_have_full_size_and_go_in_chunks(batch_size, largest):
    model = Watched(Pointwise())
    make(model, **SLIDE, stride=[16, 20], batch_size=batch_size)(*images(2, 37, 65), (37, 65))
    assert sum(shape[0] for shape in model.shapes) == 2 * 3 * 4  # images, rows, columns
    assert max(shape[0] for shape in model.shapes) == largest
    assert {shape[1:] for shape in model.shapes} == {(3, 16, 20)}


def test_a_window_of_at_least_the_image_is_the_whole_image():
    pair = images(2, 37, 51)
    slide = make(tiny(), mode="slide", window=[37, 60], batch_size=2)
    assert torch.equal(slide.scores(*pair, (37, 51)), make(tiny()).scores(*pair, (37, 51)))
