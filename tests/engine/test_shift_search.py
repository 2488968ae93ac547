"""The shift between two images, against a brute-force search, on known shifts, and in the scores of a run."""

from __future__ import annotations

import pytest
import torch
from known_models import Pointwise

from mdg.config import load_config
from mdg.config.schema import EvalConfig
from mdg.data import build_dataset, read_batch
from mdg.engine.inference import Inference, describe_inference
from mdg.engine.shift_search import _normalized_gradients, edge_agreement, find_shift, moved


def scenes(count: int = 6) -> list[tuple[torch.Tensor, torch.Tensor]]:
    opts = ["data.type=Synthetic", "data.height=64", "data.width=80", f"data.val_images={count}", "data.cache=none"]
    dataset = build_dataset(load_config("configs/demo.yaml", opts).data, "val")
    batches = [read_batch(dataset, place, None) for place in range(count)]
    return [(batch.rgb_B3HW, batch.thermal_B1HW) for batch in batches]


def test_agreement_against_every_shift_by_hand(draw):
    rgb, thermal = ((60 * draw(2, c, 9, 11, seed=c) + 128).clamp(1, 255).byte() for c in (3, 1))
    (ay, ax), (by, bx) = _normalized_gradients(rgb), _normalized_gradients(thermal)
    got, R = edge_agreement(rgb, thermal, 3), 3
    for y in range(-R, R + 1):
        for x in range(-R, R + 1):
            own = (slice(None), slice(max(0, y), 9 + min(0, y)), slice(max(0, x), 11 + min(0, x)))
            other = (slice(None), slice(max(0, -y), 9 - max(0, y)), slice(max(0, -x), 11 - max(0, x)))
            product = ay[own] * by[other] + ax[own] * bx[other]
            torch.testing.assert_close(got[:, y + R, x + R], product.square().mean((1, 2)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shift", [(3, -4), (-5, 2), (0, 6)])
def test_known_shifts_are_taken_back_or_left(shift):
    """By day all of them; by night, where edges are few, none by another shift."""
    backs = [find_shift(rgb, moved(thermal, torch.tensor([shift])), 8)[0] for rgb, thermal in scenes()]
    right = [bool((back + torch.tensor(shift)).abs().max() <= 1) for back in backs]
    assert all(right[::2]) and sum(right) >= 3
    assert all(good or not back.any() for good, back in zip(right, backs, strict=True))


def test_aligned_pairs_stay_as_they_are():
    assert not any(find_shift(rgb, thermal, 8).any() for rgb, thermal in scenes())


def test_contrast_and_its_sign_do_not_matter():
    rgb, thermal = scenes(1)[0]
    there = moved(255 - thermal // 2, torch.tensor([[4, 3]]))
    assert find_shift(rgb, there, 8).tolist() == [[-4, -3]]


def test_pictures_without_edges_and_small_ones_stay(draw):
    flat = torch.full((2, 1, 32, 32), 90, dtype=torch.uint8)
    assert find_shift(flat.expand(2, 3, 32, 32), flat, 8).tolist() == [[0, 0], [0, 0]]
    assert find_shift(flat[..., :8, :8].expand(2, 3, 8, 8), flat[..., :8, :8], 8).tolist() == [[0, 0], [0, 0]]


def test_moved_by_hand():
    image = torch.arange(1, 7, dtype=torch.uint8).reshape(1, 1, 2, 3)
    assert moved(image, torch.tensor([[1, -1]]))[0, 0].tolist() == [[0, 0, 0], [2, 3, 0]]
    assert moved(image, torch.tensor([[0, 0]])).equal(image) and not moved(image, torch.tensor([[2, 0]])).any()


def test_scores_are_those_of_the_pair_that_was_moved_back():
    rgb, thermal = scenes(1)[0]
    there = moved(thermal, torch.tensor([[4, 3]]))
    autocast, device = torch.autocast("cpu", enabled=False), torch.device("cpu")
    searching = Inference(Pointwise(), EvalConfig(shift_search=8), autocast, device)
    plain = Inference(Pointwise(), EvalConfig(), autocast, device)
    back = moved(there, torch.tensor([[-4, -3]]))
    assert torch.equal(searching.scores(rgb, there, (64, 80)), plain.scores(rgb, back, (64, 80)))
    assert not torch.equal(searching.scores(rgb, there, (64, 80)), plain.scores(rgb, there, (64, 80)))


def test_the_protocol_says_so():
    mode = describe_inference(EvalConfig(shift_search=8)).mode
    assert mode == "whole image, thermal moved by less than 8 px to where edges agree"
    assert describe_inference(EvalConfig(shift_search=8, cameras="rgb")).mode == "whole image, RGB alone"
