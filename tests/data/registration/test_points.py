"""Clicked points: the file, fits of known maps with mistakes among the points, and when none is believed."""

from __future__ import annotations

import numpy as np
import pytest

from mdg.data.registration import geometry
from mdg.data.registration.points import COLUMNS, Points, fit_points, least_squares, read_points
from mdg.errors import DataError, UserError

SIZE = (480, 640)
EXACT = 1e-3  # pixels; OpenCV fits homographies in 32 bits
HEADER = ",".join(COLUMNS)
LEANING = np.array([[1.1, 0.05, 12.0], [-0.03, 0.95, -7.0], [5e-5, -1e-4, 1.0]])
KNOWN = {
    "similarity": geometry.similarity(0.8, 3.0, (10, -20), (160, 128), (320, 240)),
    "affine": np.array([[1.2, 0.1, 5.0], [-0.05, 0.9, 8.0], [0, 0, 1]]),
    "homography": LEANING,
}


def points(matrix: np.ndarray, count: int = 14, noise: float = 0.0, seed: int = 0) -> Points:
    rng = np.random.default_rng(seed)
    thermal_N2 = rng.uniform((20, 20), (600, 440), (count, 2))
    rgb_N2 = (
        geometry.transform(matrix, thermal_N2) + rng.normal(0, noise, (count, 2))
        if noise
        else geometry.transform(matrix, thermal_N2)
    )
    return Points([f"{number % 3}" for number in range(count)], rgb_N2, thermal_N2)


def write(folder, *rows: str, header: str = HEADER):
    file = folder / "points.csv"
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


def test_a_file_is_read(tmp_path):
    read = read_points(write(tmp_path, "day/1,10.5,20,3,4", '"a, b",1,2,3e1,-4'))
    assert read.pairs == ["day/1", "a, b"]
    np.testing.assert_array_equal(read.rgb_N2, [[10.5, 20], [1, 2]])
    np.testing.assert_array_equal(read.thermal_N2, [[3, 4], [30, -4]])


def test_columns_may_be_in_any_order(tmp_path):
    read = read_points(write(tmp_path, "4,3,2,1,x", header="y_thermal,x_thermal,y_rgb,x_rgb,pair"))
    np.testing.assert_array_equal(np.column_stack([read.rgb_N2, read.thermal_N2]), [[1, 2, 3, 4]])


@pytest.mark.parametrize(
    "rows, header, message",
    [
        (
            ["a,1,2,3,4"],
            "pair,x,y,u,v",
            r"got the columns 'pair,x,y,u,v', expected pair,x_rgb,y_rgb,x_thermal,y_thermal",
        ),
        (["a,1,2,3,4", "b,1,,3,4"], HEADER, r"points\.csv:3: y_rgb: got '', expected a number"),
        (["a,1,2,3"], HEADER, r"points\.csv:2: y_thermal: got 'None'"),
        (["a,1,2,inf,4"], HEADER, r"x_thermal: got 'inf'"),
        (["a,1;5,2,3,4"], HEADER, r"x_rgb: got '1;5'"),
    ],
)
def test_what_is_no_file_of_points(rows, header, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_points(write(tmp_path, *rows, header=header))


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_points(tmp_path / "none.csv")


@pytest.mark.parametrize("model", KNOWN)
def test_a_known_map_is_found(model):
    fit = fit_points(points(KNOWN[model]), model, SIZE[1])
    assert geometry.distance(KNOWN[model], fit.matrix, SIZE, SIZE) < EXACT
    assert fit.used_N.all() and fit.errors_N.max() < EXACT and fit.expected < EXACT


@pytest.mark.parametrize("model", KNOWN)
def test_mistakes_are_left_out(model):
    clicked = points(KNOWN[model], 15)
    clicked.rgb_N2[[1, 6, 9]] += [[60, 0], [0, -45], [200, 90]]
    fit = fit_points(clicked, model, SIZE[1])
    assert geometry.distance(KNOWN[model], fit.matrix, SIZE, SIZE) < EXACT
    assert np.flatnonzero(~fit.used_N).tolist() == [1, 6, 9]
    np.testing.assert_allclose(fit.errors_N[[1, 6]], [60, 45], atol=EXACT)


def test_the_expected_error_is_that_of_new_points():
    """With noise of a known size, points left out are off by more than points fitted, and by about as much as others
    that were never clicked."""
    clicked = points(KNOWN["affine"], 40, noise=1.0)
    fit = fit_points(clicked, "affine", SIZE[1])
    fresh = points(KNOWN["affine"], 2000, noise=1.0, seed=1)
    off = np.linalg.norm(geometry.transform(fit.matrix, fresh.thermal_N2) - fresh.rgb_N2, axis=1).mean()
    assert fit.errors_N.mean() < fit.expected == pytest.approx(off, rel=0.25)


def test_too_few_points():
    with pytest.raises(DataError, match="got 5 points, expected at least 6 for a homography"):
        fit_points(points(LEANING, 5), "homography", SIZE[1])


def test_points_that_contradict_each_other():
    clicked = points(LEANING, 12)
    mixed = Points(clicked.pairs, np.random.default_rng(3).permutation(clicked.rgb_N2), clicked.thermal_N2)
    with pytest.raises(DataError, match=r"only \d+ of 12 points agree on one homography within 5\.0 pixels"):
        fit_points(mixed, "homography", SIZE[1])


@pytest.mark.parametrize("model", ["affine", "homography"])
def test_points_on_one_line(model):
    along = np.linspace(0, 300, 10)
    line = np.column_stack([along, 0.5 * along])
    if model == "affine":
        assert least_squares(line, line + 3, model) is None
        with pytest.raises(DataError, match="do not lie on one line"):
            fit_points(Points(["a"] * 10, line + 3, line), model, SIZE[1])
