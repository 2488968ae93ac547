"""Which modality shows an object: on painted squares, and on generated scenes whose physics is known."""

import numpy as np
import pytest

from mdg.data.datasets.mfnet import CLASSES
from mdg.data.synthetic import render_scene
from mdg.metrics.visibility import NO_OBJECT, SHOWN_IN, UNJUDGED, visibility

CAR, PERSON, CONE = (CLASSES.index(name) for name in ("car", "person", "color_cone"))


def painted(in_rgb: int, in_thermal: int, side: int = 12):
    """A noisy even field with a square that differs by so many levels in each modality."""
    rng = np.random.default_rng(0)
    label_HW = np.zeros((40, 50), np.uint8)
    label_HW[10 : 10 + side, 20 : 20 + side] = CAR
    rgb_HW3 = rng.normal(100, 4, (40, 50, 3))
    rgb_HW3[..., 2] += in_rgb * (label_HW > 0)  # in one channel only
    thermal_HW = rng.normal(100, 4, (40, 50)) + in_thermal * (label_HW > 0)
    return rgb_HW3.astype(np.uint8), thermal_HW.astype(np.uint8), label_HW


@pytest.mark.parametrize(
    ("in_rgb", "in_thermal", "kind"),
    [
        (60, 0, "objects in RGB only"),
        (0, -60, "objects in thermal only"),
        (40, 40, "objects in both"),
        (2, 2, "objects in neither"),
    ],
)
def test_contrast_decides(in_rgb, in_thermal, kind):
    rgb_HW3, thermal_HW, label_HW = painted(in_rgb, in_thermal)
    kinds_HW = visibility(rgb_HW3, thermal_HW, label_HW)
    assert set(kinds_HW[label_HW == CAR].tolist()) == {SHOWN_IN.index(kind)}
    assert (kinds_HW[label_HW == 0] == NO_OBJECT).all()


def test_each_region_is_an_object_of_its_own():
    rgb_HW3, thermal_HW, label_HW = painted(60, 0)
    label_HW[30:38, 2:10] = CAR  # the same class elsewhere, which nothing shows
    kinds_HW = visibility(rgb_HW3, thermal_HW, label_HW)
    assert kinds_HW[15, 25] == SHOWN_IN.index("objects in RGB only")
    assert kinds_HW[33, 5] == SHOWN_IN.index("objects in neither")


def test_small_objects_are_not_judged_and_ignored_pixels_are_none():
    rgb_HW3, thermal_HW, label_HW = painted(60, 0, side=4)
    label_HW[0] = 255
    kinds_HW = visibility(rgb_HW3, thermal_HW, label_HW)
    assert (kinds_HW[label_HW == CAR] == UNJUDGED).all() and (kinds_HW[0] == NO_OBJECT).all()


def test_without_a_background_every_class_is_an_object():
    rgb_HW3, thermal_HW, label_HW = painted(60, 0)
    assert (visibility(rgb_HW3, thermal_HW, label_HW, background=None) != NO_OBJECT).all()


def test_an_object_that_fills_the_image_has_nothing_around_it():
    rgb_HW3, thermal_HW, label_HW = painted(60, 0)
    assert (visibility(rgb_HW3, thermal_HW, np.full_like(label_HW, CAR)) == UNJUDGED).all()


def test_generated_scenes_show_what_they_are_painted_to_show():
    """Cones are as warm as the ground, so thermal hardly shows them; people at night are warm and dressed in black."""
    pixels = {("cone", "day"): np.zeros(4, int), ("person", "night"): np.zeros(4, int)}
    for index in range(1000, 1060):
        scene = render_scene(3407, index, 96, 128)
        kinds_HW = visibility(scene.rgb, scene.thermal, scene.label)
        for (name, time), counts in pixels.items():
            if time == ("night" if scene.night else "day"):
                of_class = scene.label == {"cone": CONE, "person": PERSON}[name]
                counts += np.bincount(kinds_HW[of_class & (kinds_HW < UNJUDGED)], minlength=4)
    rgb_only, thermal_only, both, neither = pixels["cone", "day"] / pixels["cone", "day"].sum()
    assert rgb_only > 0.75 and thermal_only + both < 0.1  # glare and deep shadow hide the others
    rgb_only, thermal_only, both, neither = pixels["person", "night"] / pixels["person", "night"].sum()
    assert thermal_only + both > 0.95 and thermal_only > 0.4 and rgb_only < 0.05
