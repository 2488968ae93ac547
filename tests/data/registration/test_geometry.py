"""Maps between images: points by hand, composition, and what becomes of a matrix when images are resized."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mdg.data.registration import geometry

LEANING = np.array([[1.1, 0.05, 12.0], [-0.03, 0.9, -7.0], [1e-4, -2e-4, 1.0]])


def test_a_point_by_hand():
    matrix = np.array([[2.0, 0, 3], [0, 4.0, 5], [0, 0.5, 1]])
    np.testing.assert_allclose(geometry.transform(matrix, np.array([[1.0, 2.0]])), [[5 / 2, 13 / 2]])


def test_points_behind_the_image_are_none():
    matrix = np.array([[1.0, 0, 0], [0, 1, 0], [-0.1, 0, 1]])
    assert np.isnan(geometry.transform(matrix, np.array([[10.0, 0], [11, 0]]))).all()


def test_points_are_mapped_as_opencv_does():
    points = np.random.default_rng(0).uniform(0, 500, (20, 2))
    expected = cv2.perspectiveTransform(points[:, None], LEANING)[:, 0]
    np.testing.assert_allclose(geometry.transform(LEANING, points), expected, atol=1e-9)


def test_maps_compose():
    other = geometry.similarity(0.7, 4.0, (3, -8), (100, 50), (320, 240))
    points = geometry.grid((480, 640))
    one_by_one = geometry.transform(other, geometry.transform(LEANING, points))
    np.testing.assert_allclose(geometry.transform(other @ LEANING, points), one_by_one, atol=1e-9)


def test_a_similarity_by_hand():
    matrix = geometry.similarity(2.0, 90.0, (1, 2), (10, 20), (100, 200))
    mapped = geometry.transform(matrix, np.array([[10.0, 20.0], [11.0, 20.0], [10.0, 21.0]]))
    np.testing.assert_allclose(mapped, [[101, 202], [101, 204], [99, 202]], atol=1e-12)


def test_resizing_keeps_the_edges_of_an_image():
    matrix = geometry.resizing((4, 6), (8, 3))
    corners = np.array([[-0.5, -0.5], [5.5, 3.5]])  # outer edges of the first and of the last pixel
    np.testing.assert_allclose(geometry.transform(matrix, corners), [[-0.5, -0.5], [2.5, 7.5]])


def test_a_matrix_for_other_sizes_maps_the_same_places():
    known, wanted = ((256, 320), (480, 640)), ((128, 160), (960, 1280))
    scaled = geometry.for_sizes(LEANING, known, wanted)
    point = np.array([[77.0, 31.0]])
    there = geometry.transform(geometry.resizing(known[0], wanted[0]), point)
    arrived = geometry.transform(geometry.resizing(known[1], wanted[1]), geometry.transform(LEANING, point))
    np.testing.assert_allclose(geometry.transform(scaled, there), arrived, atol=1e-9)
    np.testing.assert_allclose(
        geometry.for_sizes(scaled, wanted, known), geometry.normal(LEANING), atol=1e-12
    )  # and back


def test_distance_of_a_shift():
    shift = np.array([[1.0, 0, 3], [0, 1, 4], [0, 0, 1]])
    assert geometry.distance(np.eye(3), shift, (48, 64), (48, 64)) == pytest.approx(5)
    assert geometry.distance(shift, np.eye(3), (48, 64), (48, 64)) == pytest.approx(5)


def test_distance_counts_only_what_both_see():
    """A scale about the corner (0, 0) moves far points; only the quarter that the small image covers is measured."""
    half = np.diag([0.5, 0.5, 1.0])
    away = geometry.distance(half, np.diag([0.6, 0.6, 1.0]), (101, 101), (101, 101))
    xs = np.linspace(0, 100, 17)[:9]  # up to 50
    expected = np.mean([np.hypot(x, y) * 0.2 for x in xs for y in xs])
    assert away == pytest.approx(expected)


def test_distance_of_maps_that_share_nothing():
    far = np.array([[1.0, 0, 500], [0, 1, 0], [0, 0, 1]])
    assert geometry.distance(far, far, (48, 64), (48, 64)) == np.inf


@pytest.mark.parametrize(
    "matrix, sane",
    [
        (np.eye(3), True),
        (LEANING, True),
        (-LEANING, True),  # the same map
        (np.diag([-1.0, 1, 1]), False),  # a mirror
        (np.diag([0.05, 0.05, 1]), False),
        (np.array([[1.0, 0, 0], [0, 1, 0], [-0.02, 0, 1]]), False),  # folds at x = 50
        (np.full((3, 3), np.nan), False),
    ],
)
def test_sane_maps(matrix, sane):
    assert geometry.sane(matrix, (48, 64), (48, 64)) == sane
