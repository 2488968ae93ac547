"""By what pairs are told from those of the training, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mdg.engine.trust.familiarity import deepest_maps, describe_pixels, distances, fit_group, unlikeness
from mdg.engine.trust.state import FamiliarGroup


def test_numbers_of_pixels_by_hand():
    rgb = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    rgb[0, 0] = torch.tensor([[30, 60], [0, 0]])
    thermal = torch.tensor([[[[255, 255], [0, 100]]]], dtype=torch.uint8)
    got = describe_pixels(rgb, thermal)[0].tolist()
    grey = np.array([10.0, 20.0, 0.0, 0.0])
    # Three means, deviation, dark, bright, and steps down and to the right.
    assert got[:7] == pytest.approx([22.5, 0, 0, grey.std(), 0.5, 0, (10 + 20) / 2 + (10 + 0) / 2])
    heat = np.array([255.0, 255.0, 0.0, 100.0])
    assert got[7:] == pytest.approx([heat.mean(), heat.std(), 0.25, 0.5, (255 + 155) / 2 + (0 + 100) / 2])
    assert describe_pixels(rgb, thermal, ("thermal",))[0].tolist() == pytest.approx(got[7:])


def test_one_row_of_pixels_has_no_steps_down():
    image = torch.full((1, 1, 1, 5), 7, dtype=torch.uint8)
    assert describe_pixels(image, image, ("thermal",))[0].tolist() == pytest.approx([7, 0, 1, 0, 0])


def test_distances_by_hand():
    group = FamiliarGroup(name="pixels", mean=[1.0, 0.0], deviation=[2.0, 1.0], limit=2.0)
    assert distances(group, np.array([[1.0, 0.0], [5.0, 0.0], [1.0, 4.0]])) == pytest.approx([0, 2**0.5, 8**0.5])
    with pytest.raises(ValueError, match="got 3 numbers of a frame, expected 2"):
        distances(group, np.zeros((1, 3)))


def test_the_limit_is_that_of_frames_that_did_not_train():
    rng = np.random.default_rng(0)
    trained, held_out = rng.normal(3, 2, (500, 8)), rng.normal(3, 2, (1000, 8))
    group = fit_group("pixels", trained, held_out)
    far = distances(group, held_out) / group.limit
    assert np.mean(far > 1) == pytest.approx(0.01, abs=0.002)
    assert np.all(distances(group, held_out + 10) / group.limit > 1)


def test_a_number_that_never_moved_does_not_decide_alone():
    trained = np.random.default_rng(0).normal(0, 1, (50, 3))
    trained[:, 0] = 5.0
    group = fit_group("pixels", trained, trained)
    assert group.deviation[0] == pytest.approx(0.05 * np.median(trained.std(0)))


def test_the_farther_group_decides():
    groups = [FamiliarGroup(name=name, mean=[0.0], deviation=[1.0], limit=2.0) for name in ("pixels", "features")]
    numbers = {"pixels": np.array([[1.0], [4.0]]), "features": np.array([[3.0], [0.0]])}
    assert unlikeness(groups, numbers) == pytest.approx([1.5, 2.0])
    assert unlikeness(groups, {"pixels": numbers["pixels"]}) == pytest.approx([0.5, 2.0])


@pytest.mark.parametrize(("trained", "held_out"), [(1, 5), (5, 0)])
def test_too_few_frames(trained, held_out):
    with pytest.raises(ValueError, match=f"got {trained} and {held_out} frames"):
        fit_group("pixels", np.zeros((trained, 2)), np.zeros((held_out, 2)))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder = nn.Identity()

    def forward(self, x):
        return self.decoder([x, 2 * x])


def test_the_deepest_map_of_the_first_pass():
    network, x = Network(), torch.arange(12.0).reshape(1, 2, 2, 3)
    with deepest_maps(network) as maps:
        network(x)
        network(x + 1)
    assert len(maps) == 1 and torch.equal(maps[0], 2 * x.double().mean((1, 2)))
    network(x)
    assert len(maps) == 1
