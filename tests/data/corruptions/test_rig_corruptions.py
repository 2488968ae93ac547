"""What is missing, frozen or elsewhere, against what can be counted by hand; and the distances behind it.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B.
"""

from __future__ import annotations

import numpy as np
import pytest
from told_images import SIZE, after, flat, noise_HW

from mdg.data.corruptions import CORRUPTIONS, Images, depth, moving


def test_what_is_missing_by_hand():
    for camera in ("rgb", "thermal"):
        image = np.dstack([noise_HW((10, 7), seed) for seed in range(3)])
        images = Images(image, image[..., 0], np.zeros((10, 7), np.uint8))
        kept = images.of(camera)
        for severity, rows in ((1, 2), (3, 6), (5, 10)):
            for name, fill in (("MissingBlack", 0), ("MissingMean", np.rint(kept.mean(axis=(0, 1))))):
                got = after(name, images, severity, camera)
                np.testing.assert_array_equal(got[: 10 - rows], kept[: 10 - rows])
                np.testing.assert_array_equal(got[10 - rows :], np.broadcast_to(fill, got[10 - rows :].shape))


def test_frozen_shows_the_frame_of_its_age():
    asked = []

    def previous(age: int) -> Images:
        asked.append(age)
        return flat(age, (30, 40))

    for severity in (1, 2, 3, 4, 5, 2.5, 0.4):
        got = CORRUPTIONS["Frozen"]("thermal").corrupt(flat(), severity, np.random.default_rng(0), previous)
        assert got.thermal_HW.shape == SIZE and (got.rgb_HW3 == 100).all()
        assert (got.thermal_HW == (asked[-1] if severity != 0.4 else 100)).all()
    assert asked == [1, 2, 4, 8, 16, 3]


@pytest.mark.parametrize("right, down", [(3, -2), (-5, 0), (0, 4), (-1, -1)])
def test_a_shift_by_whole_pixels(right, down):
    thermal_HW = noise_HW(SIZE)
    expected_HW = np.zeros_like(thermal_HW)
    for y in range(60):
        for x in range(80):
            if 0 <= y - down < 60 and 0 <= x - right < 80:
                expected_HW[y, x] = thermal_HW[y - down, x - right]
    np.testing.assert_array_equal(moving.shifted(thermal_HW, right, down), expected_HW)


def test_quarter_turns_and_scales():
    thermal_HW = noise_HW((21, 21))
    np.testing.assert_array_equal(moving.turned(thermal_HW, 90, 1), np.rot90(thermal_HW))
    twice_HW = moving.turned(thermal_HW, 0, 2)
    np.testing.assert_array_equal(twice_HW[::2, ::2], thermal_HW[5:16, 5:16])


def centre(thermal_HW: np.ndarray) -> tuple[float, float]:
    """x and y of what is hot."""
    heat_HW = np.maximum(thermal_HW.astype(float) - 120, 0)
    y_HW, x_HW = np.indices(heat_HW.shape)
    return (heat_HW * x_HW).sum() / heat_HW.sum(), (heat_HW * y_HW).sum() / heat_HW.sum()


def spot(y: int, x: int) -> Images:
    images = flat(0, (121, 161))
    images.thermal_HW[y - 2 : y + 3, x - 2 : x + 3] = 250
    return images


@pytest.mark.parametrize("severity, distance", [(1, 1.21), (3, 4.235), (5, 9.68)])
def test_shift_has_its_length(severity, distance):
    directions = []
    for seed in range(12):
        x, y = centre(after("ThermalShift", spot(60, 80), severity, seed=seed))
        assert np.hypot(x - 80, y - 60) == pytest.approx(distance, abs=0.15)
        directions.append(np.sign([x - 80, y - 60]))
    assert len({tuple(direction) for direction in directions}) == 4


def test_rotation_and_scale_about_the_centre():
    angles, scales = set(), set()
    for seed in range(10):
        x, y = centre(after("ThermalRotation", spot(60, 120), 5, seed=seed))
        assert np.hypot(x - 80, y - 60) == pytest.approx(40, abs=0.2)
        angles.add(round(np.degrees(np.arctan2(60 - y, x - 80))))
        x, y = centre(after("ThermalScale", spot(60, 120), 5, seed=seed))
        assert y == pytest.approx(60, abs=0.1)
        scales.add(round((x - 80) / 40, 2))
    assert angles == {-9, 9}
    assert all(min(abs(scale - s) for s in (1.16, 1 / 1.16)) < 0.015 for scale in scales) and len(scales) == 2


def thing(y: int, x: int, size: int = 11) -> Images:
    """A hot square, labelled, on a cold ground; its lower edge at row ``y``, its middle at column ``x``."""
    images, half = flat(20, (121, 161)), size // 2
    part = np.s_[y - size + 1 : y + 1, x - half : x + half + 1]
    images.thermal_HW[part], images.label_HW[part] = 220, 3
    return images


def test_nearness_of_ground_and_things():
    images = thing(90, 80)
    nearness_HW = depth.nearness_map(images.label_HW)
    assert nearness_HW[:49].max() == 0 and (nearness_HW[120] == 1).all()
    assert nearness_HW[84, 5] == pytest.approx(0.5) and nearness_HW[84, 80] == pytest.approx(42 / 72)
    images.label_HW[100:, :] = 7  # a road: it spans the width
    images.label_HW[100:105, 20:25] = 255
    (only,) = depth.things(images.label_HW)
    assert (only.left, only.top, only.mask_hw.shape) == (75, 80, (11, 11)) and only.mask_hw.all()
    np.testing.assert_allclose(depth.distance_m(np.float32([0, 0.5, 1])), [80, 5.581, 2.892], atol=1e-3)


def test_parallax_moves_near_things_more():
    for row in (50, 84, 120):
        nearness, sides = (row - 48) / 72, set()
        for seed in range(8):
            seen_HW = after("Parallax", thing(row, 80), 5, seed=seed)
            x, y = centre(seen_HW)
            assert abs(x - 80) == pytest.approx(0.08 * 121 * nearness, abs=0.6) and y == pytest.approx(row - 5, abs=0.3)
            sides.add(np.sign(round(x - 80, 1)))
            ghost = seen_HW[row - 8 : row - 2, 60:101].max(axis=0) > 120
            assert ghost.sum() <= 13  # it is seen once
        assert len(sides) == 2


def test_parallax_of_the_ground_by_row():
    images = flat(20, (121, 161))
    images.thermal_HW[:, 80] = 220
    for seed in range(4):
        seen_HW = after("Parallax", images, 5, seed=seed).astype(float)
        for row, nearness in ((10, 0.0), (84, 0.5), (120, 1.0)):
            heat_W = np.maximum(seen_HW[row] - 20, 0)
            assert abs((heat_W * np.arange(161)).sum() / heat_W.sum() - 80) == pytest.approx(9.68 * nearness, abs=0.1)


@pytest.mark.parametrize("severity, metres", [(2, 0.3), (5, 1.5)])
def test_time_lag_shows_things_farther_away(severity, metres):
    for row, column in ((84, 120), (110, 30)):
        then = 1 / (1 + metres / 3 * (row - 48) / 72)
        x, y = centre(after("TimeLag", thing(row, column), severity))
        assert x == pytest.approx(80 + (column - 80) * then, abs=0.6)
        assert y == pytest.approx(48 + (row - 5 - 48) * then, abs=0.6)


def test_time_lag_of_the_ground():
    images = flat(20, (121, 161))
    images.thermal_HW[99:102] = 220
    images.thermal_HW[19:22] = 220
    seen_HW = after("TimeLag", images, 3)  # 0.6 m
    assert seen_HW[20, 80] == 220  # above the horizon nothing moves
    nearness = (100 - 48) / 72
    heat_H = np.maximum(seen_HW[60:, 80].astype(float) - 20, 0)
    row = (heat_H * np.arange(60, 121)).sum() / heat_H.sum()
    assert row == pytest.approx(48 + 52 / (1 + 0.2 * nearness), abs=0.15)
    assert seen_HW[120].min() == 20  # continued, not black
