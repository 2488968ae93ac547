"""Counting classes, and the weights and chances that follow."""

from __future__ import annotations

import math

import numpy as np
import pytest
from layouts import write_mfnet_folders

from mdg.data import build_dataset
from mdg.data.class_pixels import class_weights, count_classes, frame_chances
from mdg.errors import ConfigError


@pytest.mark.parametrize("data", ["files", "generated"])
def test_every_label_is_counted(tmp_path, data):
    options = {"type": "Synthetic", "height": 40, "width": 48, "train_images": 3}
    if data == "files":
        options = {"type": "MFNet", "root": write_mfnet_folders(tmp_path)}
    dataset = build_dataset(options, "train")
    pixels_NK = count_classes(dataset)
    assert pixels_NK.shape == (len(dataset), 9) and pixels_NK.dtype == np.int64
    for index in range(len(dataset)):
        label = dataset[index].label_HW
        assert pixels_NK[index].tolist() == [int((label == k).sum()) for k in range(9)]


def test_weights_by_the_formula():
    pixels = np.array([[60, 30, 0], [30, 0, 0]])
    weights = class_weights(pixels)
    plain = [1 / math.log(1.02 + 0.75), 1 / math.log(1.02 + 0.25)]
    mean = 0.75 * plain[0] + 0.25 * plain[1]
    assert weights.tolist() == pytest.approx([plain[0] / mean, plain[1] / mean, 0])
    with pytest.raises(ConfigError, match="no pixel of the train split is labelled"):
        class_weights(np.zeros((2, 3), int))


def test_chances_by_the_formula():
    pixels = np.array([[80, 20, 0], [100, 0, 0], [95, 5, 0], [60, 20, 20]])
    chances = frame_chances(pixels, temperature=0.5, min_pixels=10)
    share = pixels.sum(0) / pixels.sum()
    class_chance = [math.exp((1 - s) / 0.5) for s in share]
    class_chance = [c / sum(class_chance) for c in class_chance]
    by_hand = [0.0] * 4
    for k, frames in enumerate(([0, 1, 2, 3], [0, 3], [3])):  # five pixels are too few
        for n in frames:
            by_hand[n] += class_chance[k] / len(frames)
    assert chances.tolist() == pytest.approx(by_hand) and chances.sum() == pytest.approx(1)


def test_a_low_temperature_overflows_nothing():
    chances = frame_chances(np.array([[1000, 0], [999, 1]]), temperature=1e-4, min_pixels=1)
    assert chances.tolist() == pytest.approx([0, 1])
    with pytest.raises(ConfigError, match=r"rare_class_sampling.min_pixels: got 9"):
        frame_chances(np.array([[3, 2]]), temperature=1, min_pixels=9)
