"""Outlines to pixels and back: answers by hand, by brute force, and masks that come back as they were."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mdg.data.annotations.outlines import area, find_regions, simplify, split_holes, trace
from mdg.data.annotations.raster import Patch, corners, fill_circle, fill_polygon, place_mask


def painted(patch: Patch, height: int, width: int) -> np.ndarray:
    plane = np.zeros((height, width), bool)
    patch.paint(plane, True)
    return plane


def by_rays(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Even-odd, pixel by pixel and edge by edge."""
    inside = np.zeros((height, width), bool)
    for row in range(height):
        for column in range(width):
            for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
                y = row + 0.5
                if (y0 <= y) != (y1 <= y) and column + 0.5 >= x0 + (y - y0) / (y1 - y0) * (x1 - x0):
                    inside[row, column] ^= True
    return inside


def test_a_square_along_the_edges_of_pixels():
    plane = painted(fill_polygon(corners(1, 2, 4, 5), 7, 6), 7, 6)
    expected = np.zeros((7, 6), bool)
    expected[2:5, 1:4] = True
    assert np.array_equal(plane, expected)


def test_centres_decide():
    assert fill_polygon(corners(1.4, 1.4, 1.6, 1.6), 4, 4).pixels() == 1
    assert fill_polygon(corners(1.6, 1.6, 2.4, 2.4), 4, 4).pixels() == 0
    # The diagonal of 4x4 pixels runs through 4 centres, which belong to what lies right of it and above; 6 lie below.
    below, above = np.array([[0.0, 0], [4, 4], [0, 4]]), np.array([[0.0, 0], [4, 0], [4, 4]])
    assert (fill_polygon(below, 4, 4).pixels(), fill_polygon(above, 4, 4).pixels()) == (6, 10)


def test_polygons_by_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(40):
        points = rng.uniform(-6, 22, (int(rng.integers(3, 9)), 2))  # they cross themselves, and leave the frame
        if rng.random() < 0.3:
            points = np.round(points * 2) / 2  # corners on centres and on edges
        assert np.array_equal(painted(fill_polygon(points, 13, 16), 13, 16), by_rays(points, 13, 16))


def test_neighbours_share_no_pixel_and_leave_none():
    rng = np.random.default_rng(1)
    for _ in range(20):
        middle = rng.uniform(2, 18, 2)
        frame = corners(0, 0, 20, 20)
        parts = [fill_polygon(np.array([frame[k], frame[(k + 1) % 4], middle]), 20, 20) for k in range(4)]
        assert np.array_equal(sum(painted(part, 20, 20).astype(int) for part in parts), np.ones((20, 20), int))


def test_many_edges_are_filled_in_several_goes():
    angles = np.linspace(0, 2 * math.pi, 40_000, endpoint=False)
    ring = np.stack([50 + 40 * np.cos(angles), 50 + 40 * np.sin(angles)], axis=1)
    assert np.array_equal(
        painted(fill_polygon(ring, 100, 100), 100, 100), painted(fill_circle(50, 50, 40, 100, 100), 100, 100)
    )


def test_circles_and_masks_at_the_border():
    y, x = np.mgrid[:9, :11]
    expected = (x + 0.5 - 1) ** 2 + (y + 0.5 - 8.2) ** 2 <= 9
    assert np.array_equal(painted(fill_circle(1, 8.2, 3, 9, 11), 9, 11), expected)
    assert fill_circle(-9, 4, 3, 9, 11).pixels() == fill_circle(4, 40, 3, 9, 11).pixels() == 0
    mask = np.array([[1, 0], [1, 1]], bool)
    plane = painted(place_mask(mask, -1, 9, 9, 10), 9, 10)
    assert plane.sum() == 1 and plane[0, 9]
    assert place_mask(mask, 9, 0, 9, 10).pixels() == place_mask(mask, 0, -2, 9, 10).pixels() == 0


def test_outlines_by_hand():
    ring = np.ones((3, 4), bool)
    ring[1, 1:3] = False
    (outline,), (hole,) = trace(ring)
    assert {tuple(point) for point in outline.tolist()} == {(0, 0), (4, 0), (4, 3), (0, 3)} and len(outline) == 4
    assert {tuple(point) for point in hole.tolist()} == {(1, 1), (3, 1), (3, 2), (1, 2)} and len(hole) == 4
    assert area(outline) == 12 and area(hole) == 2
    (dot,), none = trace(np.ones((1, 1), bool))
    assert area(dot) == 1 and not none


def test_regions_hang_together_by_their_sides():
    mask = np.array([[1, 0, 2], [0, 1, 2], [1, 1, 0]], np.uint8)
    regions = find_regions(mask, [1, 2])
    assert sorted((region.id, region.pixels) for region in regions) == [(1, 1), (1, 3), (2, 2)]
    assert [region.pixels for region in find_regions(mask, [1, 2], 3)] == [3]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_parts_without_holes_are_the_mask(share):
    rng = np.random.default_rng(2)
    for size in ((12, 15), (1, 9), (30, 7)):
        mask = rng.random(size) < share
        plane = np.zeros(size, int)
        for ring in split_holes(mask):
            plane += painted(fill_polygon(ring.astype(float), *size), *size)
        assert np.array_equal(plane, mask)  # and none twice


def test_simplification_stays_within_its_tolerance():
    y, x = np.mgrid[:60, :60]
    disk = (x - 30) ** 2 + (y - 30) ** 2 <= 24**2
    (ring,), _ = trace(disk)
    assert np.array_equal(simplify(ring, 0), ring)
    fewer = simplify(ring, 1.0)
    assert 8 <= len(fewer) < len(ring) / 3
    for point in ring.astype(float):
        assert min(distance(point, a, b) for a, b in zip(fewer, np.roll(fewer, -1, axis=0), strict=True)) <= 1.0 + 1e-6
    (dot,), _ = trace(np.ones((1, 1), bool))
    assert area(simplify(dot, 50.0)) == 1  # not simplified away


def distance(point: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    along = (b - a).astype(float)
    place = np.clip(np.dot(point - a, along) / np.dot(along, along), 0, 1)
    return float(np.linalg.norm(point - (a + place * along)))
