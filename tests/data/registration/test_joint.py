"""Registration from edges on generated scenes: a known map is found and its error told; unrelated pairs are refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mdg.data.registration import geometry
from mdg.data.registration.coarse import search
from mdg.data.registration.features import orientation, shown
from mdg.data.registration.joint import Estimate, register
from mdg.data.registration.refine import Agreement, improve
from mdg.data.registration.run import require_evidence
from mdg.data.registration.views import make_views
from mdg.data.synthetic import render_scene
from mdg.errors import DataError

SIZE = (120, 160)
TRUTH = geometry.similarity(1.15, 3.0, (7, -5), geometry.centre(SIZE), geometry.centre(SIZE))


def two_cameras(places, others=None) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Grey RGB of scenes, and thermal of the same (or of other) scenes by a camera that is mapped to it by TRUTH."""
    scenes = [render_scene(3, place, *SIZE) for place in places]
    heat = scenes if others is None else [render_scene(3, place, *SIZE) for place in others]
    moved = [cv2.warpPerspective(scene.thermal, np.linalg.inv(TRUTH), SIZE[::-1]) for scene in heat]
    return [cv2.cvtColor(scene.rgb, cv2.COLOR_RGB2GRAY) for scene in scenes], moved


@pytest.fixture(scope="module")
def found() -> Estimate:
    return register(*two_cameras(range(0, 12, 2)))


def test_a_known_map_is_found(found):
    error = geometry.distance(TRUTH, found.matrix, SIZE, SIZE)
    assert error < 1.5 and found.sizes == (SIZE, SIZE)
    require_evidence(found)
    assert error < 4 * found.error + 0.5, "the error told is of the size of the error made"


def test_a_small_thermal_camera_beside_a_large_one():
    """RGB of three times the pixels: both are looked at where they show as much."""
    rgb, thermal = two_cameras(range(0, 8, 2))
    large = [cv2.resize(image, (480, 360), interpolation=cv2.INTER_CUBIC) for image in rgb]
    found = register(large, thermal, "similarity")
    expected = geometry.for_sizes(TRUTH, (SIZE, SIZE), (SIZE, (360, 480)))
    assert geometry.distance(expected, found.matrix, *found.sizes) < 4.5
    require_evidence(found)


def test_it_is_the_same_for_the_negative(found):
    """Black-hot images show the same edges."""
    rgb, thermal = two_cameras(range(0, 12, 2))
    first = make_views(rgb, thermal, 160)
    negative = make_views(rgb, [255 - image for image in thermal], 160)
    # The border of a warp is black in one and white in the other, so only what is inside is compared.
    inside = first.thermal_mask > 0
    one, other = (orientation(views.thermal[0], first.thermal_mask) for views in (first, negative))
    np.testing.assert_allclose(one[inside], other[inside], atol=1e-4)


def test_unrelated_pairs_are_refused():
    lost = register(*two_cameras(range(0, 12, 2), range(101, 113, 2)))
    with pytest.raises(DataError, match=r"the 6 pairs do not tell .* % of halves .*--points FILE takes") as caught:
        require_evidence(lost)
    assert "\n" not in str(caught.value)


def test_images_without_edges_are_refused():
    grey = [np.full(SIZE, 90, np.uint8)] * 3
    with pytest.raises(DataError, match="the 3 pairs do not tell"):
        require_evidence(register(grey, grey))


@pytest.mark.parametrize(
    "changes", [{"halves": 0.7}, {"peak": 4.9}, {"error": 6.0}, {"error": float("inf")}, {"error": float("nan")}]
)
def test_every_kind_of_weak_evidence_is_refused(changes):
    strong = {"matrix": np.eye(3), "sizes": ((480, 640),) * 2, "score": 0.2, "peak": 9.0, "halves": 1.0, "error": 1.0}
    require_evidence(Estimate(**strong))
    with pytest.raises(DataError):
        require_evidence(Estimate(**{**strong, **changes}))


# --- parts -------------------------------------------------------------------------------------------------------


def test_directions_by_hand():
    """A ramp to the right has the doubled angle 0, one downwards 180 degrees, one along the diagonal 90 degrees; so
    have their negatives."""
    x, y = np.meshgrid(np.arange(40.0), np.arange(40.0))
    mask = np.ones((40, 40), np.float32)
    for ramp, expected in ((x, 1), (y, -1), (x + y, 1j), (x - y, -1j)):
        for sign in (1, -1):
            field = orientation((128 + 3 * sign * ramp).astype(np.float32), mask)[20, 20]
            assert field / abs(field) == pytest.approx(expected, abs=1e-4) and 0.2 < abs(field) < 1


def test_a_border_is_not_shown_and_a_dark_sky_is():
    rng = np.random.default_rng(0)
    images = [rng.integers(50, 200, (40, 60), np.uint8) for _ in range(4)]
    assert shown(images).all()
    for number, image in enumerate(images):
        image[: 8 * number + 2] = 0  # a sky of its own height
    assert shown(images).all()
    for image in images:
        image[:] = np.maximum(image, 50)
        image[:, :7] = 2
    mask = shown(images)
    assert not mask[:, :7].any() and mask[:, 7:].all()


def test_the_first_look_finds_a_shift():
    rng = np.random.default_rng(0)
    blobs = cv2.GaussianBlur(rng.integers(0, 256, (120, 160), np.uint8), (0, 0), 3)
    image = cv2.normalize(blobs, None, 0, 255, cv2.NORM_MINMAX)
    shifted = np.roll(image, (4, -9), axis=(0, 1))  # thermal shows everything 9 pixels to the left and 4 lower
    score, matrix = next(search(make_views([image], [shifted], 160)).best(np.array([0]), 1))
    expected = np.array([[1, 0, 9], [0, 1, -4], [0, 0, 1]])
    assert score > 0.5 and geometry.distance(expected, matrix, (120, 160), (120, 160)) < 2.5


def surfaces(matrix: np.ndarray, reach: int = 4) -> Agreement:
    """Cells that agree best where ``matrix`` brings them, each a smooth bump."""
    xs, ys = np.meshgrid(np.arange(8.0) * 20 + 10, np.arange(6.0) * 20 + 10)
    centres = np.column_stack([xs.ravel(), ys.ravel()])
    wanted = geometry.transform(matrix, centres) - centres
    axis = np.arange(-reach, reach + 1)
    square = (axis[None, :, None] - wanted[:, 1, None, None]) ** 2 + (axis[None, None] - wanted[:, 0, None, None]) ** 2
    return Agreement(np.exp(-square / 8)[None].astype(np.float32), centres, reach, (120, 160))


@pytest.mark.parametrize(
    "model, matrix",
    [
        ("similarity", geometry.similarity(1.01, 0.6, (1.2, -0.7), (80, 60), (80, 60))),
        ("affine", np.array([[1.02, 0.01, -1.5], [-0.005, 0.99, 0.8], [0, 0, 1]])),
        ("homography", np.array([[1.01, 0.0, -1.0], [0.005, 1.0, 0.5], [5e-5, -6e-5, 1]])),
    ],
)
def test_refinement_finds_the_map_of_its_cells(model, matrix):
    found = improve(surfaces(matrix), np.array([0]), model)
    assert geometry.distance(matrix, found, (120, 160), (120, 160)) < 0.15


def test_a_cell_with_edges_of_one_direction_does_not_pull_along_them():
    """Half of the cells know x only, and their best y is anywhere; the other half says where it is."""
    plain = surfaces(np.array([[1.0, 0, 1.5], [0, 1, -1], [0, 0, 1]]))
    sums = plain.sums_PCSS.copy()
    sums[0, ::2] = sums[0, ::2].max(axis=1, keepdims=True)
    found = improve(Agreement(sums, plain.centres_C2, plain.reach, plain.size), np.array([0]), "similarity")
    np.testing.assert_allclose(found[:2, 2], [1.5, -1], atol=0.1)
