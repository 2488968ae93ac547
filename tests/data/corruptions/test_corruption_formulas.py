"""Corruptions of one camera against what can be counted by hand, or computed pixel by pixel.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from told_images import SIZE, after, flat, noise_HW, ramp

from mdg.data.corruptions import CORRUPTIONS, Images, base, optics, weather

# --- light and lens ----------------------------------------------------------------------------------------------


def test_overexposure_is_a_factor_and_a_limit():
    brighter = after("Overexposure", ramp(), 3, "rgb")[..., 1].ravel()
    assert brighter[[0, 10, 100, 130, 131, 255]].tolist() == [0, 19, 194, 252, 254, 255]  # 2 ** (2.1 / 2.2) = 1.938


@pytest.mark.parametrize("severity, factor", [(1, 0.7297), (3, 0.3886), (5, 0.1510)])
def test_darkness_is_stops_of_light_and_noise(severity, factor):
    dark = after("Darkness", flat(200, (200, 200)), severity, "rgb").astype(float)
    assert dark.mean() == pytest.approx(200 * factor, abs=0.1)
    assert dark.std() == pytest.approx(np.hypot(0.8 * (1, 2, 3, 4, 6)[severity - 1], 12**-0.5), rel=0.05)


def test_glare_at_every_pixel():
    rng = np.random.default_rng(5)
    light_x, light_y = rng.uniform(0.15, 0.85) * 79, rng.uniform(0.1, 0.65) * 59
    bright = after("Glare", flat(), 1, "rgb", seed=5)
    for y, x in [(0, 0), (59, 79), (20, 33), (round(light_y), round(light_x))]:
        d = np.hypot(x - light_x, y - light_y) / (0.08 * 60)
        light = 255 * 0.4 * (np.exp(-(d**2)) + 0.35 * np.exp(-d / 3) + 0.04)
        expected = np.minimum(255, 100 + light * np.array([1, 0.95, 0.85]))
        np.testing.assert_allclose(bright[y, x], expected, atol=0.51)


@pytest.mark.parametrize("length, angle", [(6.0, 0.0), (6.0, np.pi / 2), (9.3, 0.7), (0.4, 2.0)])
def test_motion_blur_averages_along_a_line(length, angle):
    kernel = optics.kernel_of(optics.line_points(length, angle))
    y, x = np.indices(kernel.shape) - kernel.shape[0] // 2
    assert kernel.sum() == pytest.approx(1) and kernel.shape[0] % 2 == 1 and kernel.min() >= 0
    assert abs((kernel * x).sum()) < 1e-9 and abs((kernel * y).sum()) < 1e-9
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    # The variance of a line, and at most what linear interpolation adds.
    assert length**2 / 12 - 0.01 <= (kernel * along**2).sum() <= length**2 / 12 + 0.36
    assert (kernel * across**2).sum() <= 0.36


@pytest.mark.parametrize("radius", [0.3, 1.0, 4.2, 11.0])
def test_defocus_averages_over_a_disc(radius):
    kernel = optics.kernel_of(optics.disc_points(radius))
    y, x = np.indices(kernel.shape) - kernel.shape[0] // 2
    assert kernel.sum() == pytest.approx(1)
    for squared in (x**2, y**2):
        assert radius**2 / 4 - 0.01 <= (kernel * squared).sum() <= radius**2 / 4 + 0.26
    assert kernel[np.hypot(x, y) > radius + 1.5].sum() == 0
    inner = kernel[np.hypot(x, y) < radius - 1.5]
    np.testing.assert_allclose(inner, 1 / (np.pi * radius**2), rtol=0.15)


def test_blurs_keep_flat_pictures_and_their_mean():
    for name in ("MotionBlur", "Defocus"):
        assert (after(name, flat(77), 5, "rgb") == 77).all()
        images = flat()
        images.thermal_HW[30, 40] = 255
        assert after(name, images, 5).astype(float).mean() == pytest.approx(images.thermal_HW.mean(), abs=0.35)


# --- weather -----------------------------------------------------------------------------------------------------


def test_fog_is_koschmieders_law_at_every_pixel():
    rgb_HW3 = np.dstack([noise_HW(SIZE, seed) for seed in range(3)])
    images = flat()._replace(rgb_HW3=rgb_HW3)
    foggy = after("Fog", images, 4, "rgb", seed=2)
    drifts_HW = base.smooth_field(SIZE, np.random.default_rng(2), knots=6)
    air = weather.airlight(rgb_HW3)
    for y, x in [(0, 5), (10, 70), (59, 0), (45, 40)]:
        rows = [min(max(row, 0), 59) if row < 60 else 58 for row in (abs(y - 1), y, y + 1)]
        nearness = [max(0.0, (row - 0.4 * 59) / (0.6 * 59)) for row in rows]
        metres = np.mean([1 / (n / 3 + 1 / 80) for n in nearness])
        passed = np.exp(-0.064 * metres * (1 + 0.3 * drifts_HW[y, x]))
        np.testing.assert_allclose(foggy[y, x], rgb_HW3[y, x] * passed + air * (1 - passed), atol=0.6)


def test_airlight_follows_the_light():
    assert weather.airlight(flat(0).rgb_HW3) == 40 and weather.airlight(flat(255).rgb_HW3) == 230
    assert weather.airlight(flat(100).rgb_HW3) == pytest.approx(40 + 190 * 135 / 255)


@pytest.mark.parametrize("name", ["Rain", "Snow"])
def test_more_strokes_are_the_same_ones_and_others(name):
    images = flat(40, (240, 320))
    kind = CORRUPTIONS[name]
    layer, drawn = kind.layers[1], []
    for strength in kind.strengths:
        cover_HW = kind("rgb")._drawn(layer, (240, 320), strength, 0.1, np.random.default_rng(1))
        drawn.append(cover_HW)
        assert cover_HW.min() >= 0 and cover_HW.max() <= layer.opacity
    for less, more in zip(drawn, drawn[1:], strict=False):
        assert (more >= less - 0.01).all() and more.sum() > 1.2 * less.sum()
    assert after(name, images, 3, "rgb").mean() > 40


def test_rain_falls():
    """Streaks are long in y and thin in x: the picture changes far less from row to row than from column to column."""
    wet = after("Rain", flat(40, (240, 320)), 2, "rgb", seed=1)[..., 0].astype(float)
    assert np.abs(np.diff(wet, axis=1)).mean() > 2 * np.abs(np.diff(wet, axis=0)).mean()


# --- sensors -----------------------------------------------------------------------------------------------------


def test_noise_is_nearly_normal():
    drawn = base.normal_noise((500, 700), np.random.default_rng(0))
    assert drawn.dtype == np.float32 and abs(drawn.mean()) < 0.01 and drawn.std() == pytest.approx(1, abs=0.01)
    for bound, share in ((1, 0.683), (2, 0.954), (3, 0.997)):
        assert (np.abs(drawn) < bound).mean() == pytest.approx(share, abs=0.02)
    assert np.abs(drawn).max() < 3.5


@pytest.mark.parametrize("level, share", [(60, 0.6525), (128, 0.7915), (190, 0.8993)])
def test_sensor_noise_grows_with_light(level, share):
    noisy = after("SensorNoise", flat(level, (200, 300)), 1, "rgb").astype(float)
    assert noisy.mean() == pytest.approx(level, abs=0.1)
    assert noisy.std() == pytest.approx(255 * 0.04 * share, rel=0.03)


def test_thermal_noise_has_rows():
    noisy = after("ThermalNoise", flat(128, (400, 400)), 3).astype(float)
    assert noisy.std() == pytest.approx(14 * np.sqrt(1 + 1 / 16), rel=0.03)
    assert noisy.mean(axis=1).std() == pytest.approx(14 * np.sqrt(1 / 16 + 1 / 400), rel=0.15)
    assert noisy.mean(axis=0).std() == pytest.approx(14 / 20, rel=0.2)


def test_low_contrast_by_hand():
    levels_HW = np.array([[0, 100, 200]], np.uint8)
    images = Images(np.dstack([levels_HW, 255 - levels_HW, 0 * levels_HW]), levels_HW, 0 * levels_HW)
    assert after("LowContrast", images, 1).tolist() == [[40, 100, 160]]
    assert after("LowContrast", images, 5).tolist() == [[90, 100, 110]]
    assert after("LowContrast", images, 1, "rgb").tolist() == [[[40, 215, 0], [100, 155, 0], [160, 95, 0]]]


def test_offset_by_hand():
    shifts = {int(after("ThermalOffset", flat(100), 2, seed=seed)[0, 0]) for seed in range(20)}
    assert shifts == {76, 124}
    moved = [after("ThermalOffset", ramp(), 5, seed=seed).ravel() for seed in range(20)]
    expected = [np.clip(np.arange(256) + offset, 0, 255) for offset in (-75, 75)]
    assert all(any(np.array_equal(one, other) for other in expected) for one in moved)


def test_polarity_is_reversed_in_a_share_of_the_frames():
    reversed_ = [
        [after("ReversedPolarity", ramp(), k, seed=seed)[0, 0] == 255 for seed in range(300)] for k in (1, 3, 5)
    ]
    assert [np.mean(frames) for frames in reversed_] == [pytest.approx(p, abs=0.09) for p in (0.2, 0.6, 1.0)]
    assert all(reversed_[2])
    assert not any(few and not many for few, many in zip(*reversed_[:2], strict=True))
    np.testing.assert_array_equal(after("ReversedPolarity", ramp(), 5).ravel(), np.arange(255, -1, -1))


def test_drift_is_smooth_and_reaches_its_strength():
    offset_HW = after("ThermalDrift", flat(0, (120, 160))._replace(thermal_HW=np.full((120, 160), 128, np.uint8)), 5)
    drift_HW = offset_HW.astype(float) - 128
    assert 40 < np.abs(drift_HW).max() <= 90 * (1 + 128 / 510) + 1
    assert np.abs(np.diff(drift_HW, axis=0)).max() < 8 and np.abs(np.diff(drift_HW, axis=1)).max() < 8
    assert abs(drift_HW.mean()) < 1
    cold = after("ThermalDrift", flat(0), 5, seed=4)  # nothing to amplify: the offset alone
    field = [base.smooth_field(SIZE, rng) for rng in [np.random.default_rng(4)] for _ in range(2)][1]
    np.testing.assert_array_equal(cold, np.clip(np.rint(90 * field), 0, 255))


def test_fixed_pattern_has_columns():
    pattern_HW = after("FixedPattern", flat(0)._replace(thermal_HW=np.full((400, 500), 128, np.uint8)), 3).astype(float)
    columns_W = pattern_HW.mean(axis=0)
    assert columns_W.std() == pytest.approx(10, rel=0.12)
    # Within a column: half the offset per pixel, and the gain of its pixels.
    assert (pattern_HW - columns_W).std() == pytest.approx(10 * np.hypot(0.5, 128 / 255), rel=0.05)


def test_dead_rows_are_counted():
    before, kept = np.zeros(100, bool), np.zeros((0, 30), np.uint8)
    for severity, count in ((1, 1), (2, 3), (3, 5), (4, 10), (5, 20)):
        rows_HW = after("DeadRows", flat(100, (100, 30)), severity, seed=3)
        dead_H = (rows_HW != 100).all(axis=1)
        assert dead_H.sum() == count and (rows_HW[~dead_H] == 100).all()
        assert all(set(row) in ({0}, {255}) for row in rows_HW[dead_H].tolist())
        assert (rows_HW[before] == kept).all()
        before, kept = dead_H, rows_HW[dead_H]
    assert set(kept.ravel()) == {0, 255}


def test_dead_pixels_are_counted():
    fewer_HW = None
    for severity, share in enumerate((0.002, 0.006, 0.015, 0.035, 0.08), 1):
        pixels_HW = after("DeadPixels", flat(100, (300, 400)), severity, seed=3)
        dead_HW = pixels_HW != 100
        assert dead_HW.mean() == pytest.approx(share, rel=0.2)
        assert set(np.unique(pixels_HW)) == {0, 100, 255}
        assert (pixels_HW == 255).sum() == pytest.approx(dead_HW.sum() / 2, rel=0.25)
        assert fewer_HW is None or (pixels_HW[fewer_HW != 100] == fewer_HW[fewer_HW != 100]).all()
        fewer_HW = pixels_HW


def test_the_shutter_covers_columns():
    sides = set()
    for seed in range(10):
        covered_HW = after("ShutterFrame", flat(250, (40, 100)), 2, seed=seed)
        free_W = (covered_HW == 250).all(axis=0)
        assert free_W.sum() == 60 and free_W[0] != free_W[-1]
        assert 60 < covered_HW[:, ~free_W].mean() < 190 and covered_HW[:, ~free_W].std() < 3
        sides.add(bool(free_W[0]))
    assert sides == {True, False}
    assert (after("ShutterFrame", flat(250), 5) < 250).all()


def test_other_scaling_is_the_equalised_histogram():
    thermal_HW = (noise_HW(SIZE) // 5 + 90).astype(np.uint8)
    below = np.cumsum(np.bincount(thermal_HW.ravel(), minlength=256))
    first = below[thermal_HW.min()]
    equalised_HW = (255 * (below - first) / (thermal_HW.size - first))[thermal_HW]
    images = flat()._replace(thermal_HW=thermal_HW)
    np.testing.assert_allclose(after("OtherScaling", images, 5), equalised_HW, atol=0.51)
    np.testing.assert_allclose(after("OtherScaling", images, 2), 0.6 * thermal_HW + 0.4 * equalised_HW, atol=1.01)


def test_jpeg_loses_detail_and_keeps_the_rest():
    images = flat()._replace(thermal_HW=noise_HW(SIZE), rgb_HW3=np.full((*SIZE, 3), (200, 90, 30), np.uint8))
    assert np.abs(after("JPEG", images, 3, "rgb").astype(int) - (200, 90, 30)).max() <= 6  # R, G, B in their order
    for severity, quality in ((1, 25), (5, 7)):
        stored = cv2.imencode(".jpg", images.thermal_HW, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        np.testing.assert_array_equal(after("JPEG", images, severity), cv2.imdecode(stored, cv2.IMREAD_GRAYSCALE))
