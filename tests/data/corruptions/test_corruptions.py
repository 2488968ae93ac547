"""Rules that every corruption keeps.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mdg.data.corruptions import CORRUPTIONS, MOST_SEVERE, Corruption, Images, every_corruption
from mdg.data.synthetic import render_scene
from mdg.errors import ConfigError
from mdg.options.transforms import TRANSFORMS

SIZE = 96, 128
SIZES = [(1, 1), (1, 9), (7, 1), (2, 3), (5, 5), (33, 47), (64, 40)]
SEVERITIES = range(1, MOST_SEVERE + 1)
EVERY = {corruption.name: corruption for corruption in every_corruption()}
every = pytest.mark.parametrize("corruption", EVERY.values(), ids=list(EVERY))
# A frame is reversed or not; an earlier frame is no nearer for being younger.
WITHOUT_DEGREE = ("Frozen", "ReversedPolarity")


@cache
def _drawn() -> tuple[np.ndarray, ...]:
    drawn = render_scene(0, 4, *SIZE)
    return drawn.rgb, drawn.thermal, drawn.label


def scene() -> Images:
    """A day with cars, a person and a curve."""
    return Images(*(part.copy() for part in _drawn()))


def noise(size: tuple[int, int], seed: int = 0) -> Images:
    rng = np.random.default_rng(seed)
    rgb_HW3, thermal_HW = rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, 256, size, np.uint8)
    return Images(rgb_HW3, thermal_HW, rng.choice(np.array([0, 1, 5, 255], np.uint8), size))


def corrupted(corruption: Corruption, images: Images, severity: float, seed: int = 0) -> Images:
    return corruption.corrupt(images, severity, np.random.default_rng(seed), lambda age: noise(SIZE, age))


def same(one: Images, two: Images) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def rms(corruption: Corruption, one: Images, two: Images) -> float:
    return float(np.sqrt(np.mean((one.of(corruption.camera).astype(float) - two.of(corruption.camera)) ** 2)))


@every
def test_severity_0_is_the_identity(corruption):
    for images in (scene(), noise((7, 10))):
        assert same(corrupted(corruption, images, 0), images)


@every
def test_strengths_rise_and_are_interpolated(corruption):
    strengths = [corruption.strength(severity) for severity in range(MOST_SEVERE + 1)]
    assert strengths == [0, *corruption.strengths]
    assert all(low < high for low, high in zip(strengths, strengths[1:], strict=False))
    assert corruption.strength(2.25) == pytest.approx(0.75 * strengths[2] + 0.25 * strengths[3])
    assert corruption.unit and corruption.source and type(corruption).__doc__


@every
def test_each_severity_changes_the_picture_more(corruption):
    if type(corruption).__name__ in WITHOUT_DEGREE:
        assert rms(corruption, scene(), corrupted(corruption, scene(), 5)) > 5
        return
    clean = scene()
    effects = [
        np.mean([rms(corruption, clean, corrupted(corruption, clean, severity, seed)) for seed in range(4)])
        for severity in SEVERITIES
    ]
    assert all(low < high for low, high in zip(effects, effects[1:], strict=False)), effects
    assert effects[0] > 0.5 and effects[-1] > 1.3 * effects[0], effects


@every
def test_the_same_seed_gives_the_same_picture(corruption):
    images = scene()
    for severity in (1, 3.5):
        assert same(corrupted(corruption, images, severity, 7), corrupted(corruption, scene(), severity, 7))
    np.random.seed(3)  # nothing of it is used
    assert same(corrupted(corruption, images, 5, 7), corrupted(corruption, images, 5, 7))


DRAWN_NOT = ("MissingBlack", "MissingMean", "Frozen", "Overexposure", "Defocus", "JPEG", "LowContrast", "OtherScaling")
DRAWN_NOT += ("TimeLag",)


@every
def test_what_is_drawn_differs_between_seeds(corruption):
    differs = any(
        not same(corrupted(corruption, scene(), 3, 0), corrupted(corruption, scene(), 3, k)) for k in range(9)
    )
    assert differs == (type(corruption).__name__ not in DRAWN_NOT)


@every
def test_any_size(corruption):
    for size in SIZES:
        for severity in (0.01, 1, 2.5, 5):
            after = corrupted(corruption, noise(size), severity)
            assert [part.shape for part in after] == [(*size, 3), size, size], severity
            assert all(part.dtype == np.uint8 for part in after), (size, severity)


@every
def test_the_other_camera_and_the_label_stay_and_nothing_is_written_to(corruption):
    views = [part[:, ::-1] for part in scene()]
    for part in views:
        part.flags.writeable = False
    images = Images(*views)
    before = Images(*(part.copy() for part in images))
    after = corrupted(corruption, images, 5)
    assert same(images, before)
    assert after.label_HW is images.label_HW
    other = "thermal" if corruption.camera == "rgb" else "rgb"
    np.testing.assert_array_equal(after.of(other), before.of(other))
    assert not np.array_equal(after.of(corruption.camera), before.of(corruption.camera))


@every
def test_a_severity_outside_0_to_5_is_refused(corruption):
    for severity in (-0.1, 5.01, float("nan")):
        with pytest.raises(ConfigError, match="expected a number from 0 to 5"):
            corrupted(corruption, scene(), severity)


def test_a_camera_that_it_cannot_befall_is_refused():
    with pytest.raises(ConfigError, match="got camera 'rgb', expected one of: thermal"):
        CORRUPTIONS["ThermalDrift"]("rgb")


def test_an_earlier_frame_must_be_offered():
    with pytest.raises(ConfigError, match="needs a data set"):
        CORRUPTIONS["Frozen"]("rgb").corrupt(scene(), 1, np.random.default_rng(0))


def test_all_but_frozen_can_be_trained_with():
    assert set(CORRUPTIONS) - set(TRANSFORMS.names()) == {"Frozen"}


@pytest.mark.parametrize("name", ["MotionBlur of rgb", "Defocus of rgb", "Rain of rgb", "Snow of rgb", "Glare of rgb"])
def test_a_severity_means_the_same_at_another_size(name):
    """What is measured in shares of the image changes a picture about as much at half its size."""
    corruption, effects = EVERY[name], []
    for size in ((120, 160), (240, 320)):
        y_HW, x_HW = np.mgrid[: size[0], : size[1]] / size[0]
        grey_HW = 110 + 60 * np.sin(9 * x_HW) * np.sin(7 * y_HW + 1)
        images = Images(np.dstack([grey_HW] * 3).astype(np.uint8), grey_HW.astype(np.uint8), np.zeros(size, np.uint8))
        effects.append(np.mean([rms(corruption, images, corrupted(corruption, images, 4, seed)) for seed in range(4)]))
    assert effects[0] == pytest.approx(effects[1], rel=0.25)


def test_the_page_has_the_strengths_of_the_code():
    page = (Path(__file__).resolve().parents[3] / "docs" / "robustness.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:3] == "| `"]
    cameras = {("rgb",): "RGB", ("thermal",): "thermal", ("rgb", "thermal"): "either"}
    written = {name.strip("`"): (camera, strengths, unit) for name, camera, _, strengths, unit in rows}
    assert written == {
        name: (cameras[kind.cameras], ", ".join(f"{strength:g}" for strength in kind.strengths), kind.unit)
        for name, kind in CORRUPTIONS.items()
    }
