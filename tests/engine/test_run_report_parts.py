"""Parts of the report on runs with known answers: which frames are chosen, what is drawn, what runs are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from invented_results import protocol

from mdg.engine.evaluation.result_files import Result
from mdg.engine.run_report import curves
from mdg.engine.run_report.frames import ImageScore, choose, error_map, read_image_scores
from mdg.engine.run_report.runs import Run, labels, number, split_to_show
from mdg.errors import ConfigError


def scores(*mious: float) -> list[ImageScore]:
    return [ImageScore(f"f{place}", "", miou) for place, miou in enumerate(mious)]


def chosen(mious, wanted) -> dict[str, list[str]]:
    return {heading: [score.name for score in found] for heading, found in choose(scores(*mious), wanted)}


def test_the_best_the_middle_and_the_worst_frames():
    assert chosen([5, 1, 4, np.nan, 2, 3], 1) == {"Best": ["f0"], "Median": ["f5"], "Worst": ["f1"]}
    assert chosen(range(9), 2) == {"Best": ["f8", "f7"], "Median": ["f3", "f4"], "Worst": ["f0", "f1"]}


def test_no_frame_is_shown_twice():
    for count in range(3, 12):
        for wanted in range(1, 6):
            found = [name for names in chosen(range(count), wanted).values() for name in names]
            assert len(found) == len(set(found)) == 3 * min(wanted, count // 3)
    assert chosen([1, 2], 3) == {"All frames": ["f1", "f0"]}
    assert chosen([], 3) == chosen([np.nan], 3) == chosen([1, 2, 3], 0) == {}


def test_scores_of_images_are_read_by_their_columns(tmp_path):
    file = tmp_path / "images.csv"
    file.write_text('mIoU,name,condition\n41.5,"a,b",day\nNaN,c,\n')
    first, second = read_image_scores(file)
    assert first == ("a,b", "day", 41.5) and second[:2] == ("c", "") and np.isnan(second.miou)
    for content in ("", "name,mIoU\na,1\n", "name,condition,mIoU\na,day,much\n", "name,condition,mIoU\na\n"):
        file.write_text(content)
        with pytest.raises(ConfigError, match="not what an evaluation writes"):
            read_image_scores(file)


def test_errors_are_red_and_what_counts_nowhere_is_darker():
    rgb = np.full((1, 3, 3), 200, np.uint8)
    drawn = error_map(rgb, np.array([[True, True, False]]), np.array([[True, False, False]]))
    assert drawn[0].tolist() == [[214, 30, 40], [220, 220, 220], [110, 110, 110]]


def test_a_line_goes_from_corner_to_corner():
    chart = curves.draw("a title", {"one": [(0, 0), (10, 1)], "none": [], "two": [(5, 0.5)]}, 10)
    left, right, top, bottom = 46.0, curves.WIDTH - 10, 10.0, curves.HEIGHT - 34
    one, two = chart.curves
    assert one.points == f"{left},{bottom} {right},{top}" and two.points == f"{(left + right) / 2},{(top + bottom) / 2}"
    assert (one.colour, two.colour) == (0, 2) and len(one.dots) == 2
    assert [tick.text for tick in chart.x_ticks] == ["0", "2", "4", "6", "8", "10"]
    assert [tick.text for tick in chart.y_ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert chart.alt == "a title: one from 0 at step 0 to 1 at step 10; two from 0.5 at step 5 to 0.5 at step 5"


@pytest.mark.parametrize("values", [[7.0], [0.0, 0.0], [-3.0, 1e6], [1e-9, 3e-9], [71.51, 71.53], [1e300, -1e300]])
def test_every_point_lies_inside_the_axes(values):
    chart = curves.draw("t", {"a": list(enumerate(values))}, len(values) - 1)
    for point in chart.curves[0].points.split():
        x, y = map(float, point.split(","))
        assert curves.LEFT <= x <= curves.WIDTH - curves.RIGHT and curves.TOP <= y <= curves.HEIGHT - curves.BOTTOM
    assert 2 <= len(chart.y_ticks) <= 9 and len({tick.text for tick in chart.y_ticks}) == len(chart.y_ticks)


def test_long_lines_are_means_of_neighbours():
    points = [(float(step), float(step % 2)) for step in range(1000)]
    thin = curves.thinned(points, 250)
    assert len(thin) == 250 and thin[0] == (1.5, 0.5) and thin[-1] == (997.5, 0.5)
    assert curves.thinned(points[:5], 5) == points[:5] and curves.thinned([(0, 1), (1, 2), (2, 6)], 2)[-1] == (2, 6)
    chart = curves.draw("t", {"a": points}, 999)
    assert chart.note == "points are means of 4 records" and chart.curves[0].dots == []


def test_only_finite_numbers_are_numbers():
    assert [number(value) for value in (1, 2.5, True, "3", None, float("nan"), float("inf"), 10**400)] == [
        1.0, 2.5, None, None, None, None, None, None,
    ]  # fmt: skip


def test_the_split_that_is_shown():
    young, scored = (
        Run(Path("a"), "a"),
        Run(Path("b"), "b", results={"val": None}),
    )
    assert split_to_show([young], None) == "test" and split_to_show([young, scored], None) == "val"
    assert split_to_show([scored], "train") == "train"


def test_every_run_has_a_name_of_its_own(tmp_path):
    runs = [
        Run(tmp_path / str(k), name, seed) for k, (name, seed) in enumerate([("a", 1), ("b", 1), ("b", 2), ("b", 2)])
    ]
    assert labels(runs) == ["a", "b (seed 1)", f"b (seed 2), {tmp_path / '2'}", f"b (seed 2), {tmp_path / '3'}"]


def reliability_of(tmp_path, **content):
    return curves.reliability_chart(Result(tmp_path, content, protocol()))


def test_reliability_is_drawn_beside_what_would_be_right(tmp_path):
    bins = [{"pixels": 0, "right": 0, "confidence": 0.0}, {"pixels": 4, "right": 1, "confidence": 2.4}]
    (chart,) = reliability_of(tmp_path, calibration={"expected_calibration_error": 35.0, "bins": bins})
    assert "expected error 35.00 %" in chart.title and chart.along == "per cent confidence"
    assert [curve.name for curve in chart.curves] == ["right", "as it says"]
    assert [text for _, _, text in chart.curves[0].dots] == ["right: 25 at per cent confidence 60"]


@pytest.mark.parametrize("calibration", [None, {"bins": [], "expected_calibration_error": None}])
def test_results_without_reliability_draw_nothing(tmp_path, calibration):
    assert reliability_of(tmp_path, calibration=calibration) == []
    assert reliability_of(tmp_path) == []
