"""Generated scenes: reproducible, well-formed, and with modalities that really disagree."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mdg.data.synthetic import Scene, render_scene
from mdg.data.synthetic.canvas import Canvas, Paint

PERSON, CONE = 2, 7
NUM_CLASSES = 9
MIN_SHARE = 0.005  # of all pixels, per class


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Sixty scenes of one seed, day and night in turn."""
    return [render_scene(0, index, 96, 128) for index in range(60)]


def _contrast(image: np.ndarray, mask: np.ndarray) -> float:
    """|mean inside - mean of the ring around| in grey levels; a colour image counts its strongest channel."""
    ring = cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool) & ~mask
    difference = image[mask].astype(np.float64).mean(0) - image[ring].astype(np.float64).mean(0)
    return float(np.abs(difference).max())


def _median_contrasts(scenes: list[Scene], class_id: int, night: bool) -> tuple[float, float]:
    """(RGB, thermal) medians over the scenes where the class covers at least 40 px, glare left out."""
    pairs = [
        (_contrast(scene.rgb, scene.label == class_id), _contrast(scene.thermal, scene.label == class_id))
        for scene in scenes
        if scene.night == night and not scene.glare and (scene.label == class_id).sum() >= 40
    ]
    assert len(pairs) >= 5, f"only {len(pairs)} scenes to judge class {class_id}"
    rgb, thermal = np.median(pairs, axis=0)
    return rgb, thermal


def _equal(first: Scene, second: Scene) -> bool:
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("rgb", "thermal", "label"))


@pytest.mark.parametrize("index", [0, 1, 10**9])
def test_same_seed_and_index_give_the_same_scene(index):
    assert _equal(render_scene(3, index, 96, 128), render_scene(3, index, 96, 128))


def test_global_random_state_is_neither_read_nor_changed():
    np.random.seed(0)
    first = render_scene(3, 4, 64, 64)
    following = np.random.random()
    np.random.seed(0)
    assert np.random.random() == following
    assert _equal(first, render_scene(3, 4, 64, 64))


def test_seed_and_index_both_change_the_scene():
    base = render_scene(3, 4, 96, 128)
    assert not _equal(base, render_scene(3, 6, 96, 128))
    assert not _equal(base, render_scene(5, 4, 96, 128))


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (96, 128), (201, 64), (64, 250), (240, 320), (480, 640)])
@pytest.mark.parametrize("index", [0, 1])
def test_shapes_and_dtypes(size, index):
    scene = render_scene(0, index, *size)
    assert scene.rgb.shape == (*size, 3)
    assert scene.thermal.shape == scene.label.shape == size
    for plane in (scene.rgb, scene.thermal, scene.label):
        assert plane.dtype == np.uint8 and plane.flags.c_contiguous


def test_too_small_a_size_is_refused():
    with pytest.raises(ValueError, match="16x128"):
        render_scene(0, 0, 16, 128)


def test_geometry_follows_the_size():
    """The same scene at twice the size has the same layout, so that labels agree but for the outlines."""
    for index in range(8):
        small, large = render_scene(1, index, 120, 160).label, render_scene(1, index, 240, 320).label
        assert (large[::2, ::2] == small).mean() > 0.93


def test_even_indices_are_day_and_odd_ones_night(scenes):
    assert [scene.night for scene in scenes] == [index % 2 == 1 for index in range(len(scenes))]


def test_every_class_has_its_share(scenes):
    counts = np.bincount(np.concatenate([scene.label.ravel() for scene in scenes]), minlength=NUM_CLASSES)
    assert counts.size == NUM_CLASSES, "label ids beyond 8"
    shares = counts / counts.sum()
    assert shares.min() > MIN_SHARE
    assert 0.15 < 1 - shares[0] < 0.30


def test_every_class_is_frequent_by_day_and_by_night(scenes):
    for night in (False, True):
        half = [scene for scene in scenes if scene.night == night]
        for class_id in range(1, NUM_CLASSES):
            assert sum(class_id in scene.label for scene in half) >= 5, (class_id, night)


def test_label_is_not_antialiased():
    """Slanted and round edges of id 8 on 0: blending would leave other ids along them."""
    canvas, paint = Canvas(64, 64), Paint((255, 0, 0), 200, label=8)
    canvas.polygon([(3, 5), (40, 9), (21, 33)], paint)
    canvas.line([(2, 60), (60, 41)], 3, paint)
    canvas.ellipse((48, 20), (9, 6), paint)
    assert np.unique(canvas.label).tolist() == [0, 8]
    assert len(np.unique(canvas.look[..., 0])) > 2, "the picture itself is antialiased"


def test_paint_without_label_keeps_the_label_below():
    canvas = Canvas(32, 32)
    canvas.polygon([(0, 0), (31, 0), (31, 31), (0, 31)], Paint((9, 9, 9), 50, label=3))
    canvas.ellipse((16, 16), (8, 8), Paint((200, 0, 0), 90))
    assert (canvas.label == 3).all() and canvas.heat.max() == 90


def test_night_rgb_is_darker(scenes):
    day, night = ([scene.rgb.mean() for scene in scenes if scene.night == flag] for flag in (False, True))
    assert max(np.median(night), 1) * 2 < np.median(day)


def test_people_at_night_show_in_thermal_only(scenes):
    rgb, thermal = _median_contrasts(scenes, PERSON, night=True)
    assert thermal > 3 * rgb
    assert thermal > 40


def test_cones_by_day_show_in_rgb_only(scenes):
    rgb, thermal = _median_contrasts(scenes, CONE, night=False)
    assert rgb > 3 * thermal
    assert rgb > 40


def test_glare_saturates_rgb_but_not_thermal(scenes):
    for flag in (False, True):
        glaring = [scene for scene in scenes if scene.glare and scene.night == flag]
        assert glaring, "no glare scene among sixty"
        for scene in glaring:
            assert (scene.rgb.min(-1) > 240).mean() > 0.01
            assert (scene.thermal > 250).mean() < 0.01
