"""Curves over the steps of a run, as what an inline SVG draws: coordinates, ticks, and a sentence in their place.

Coordinates are those of the picture, :data:`WIDTH` x :data:`HEIGHT` units with y downwards; the page scales it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mdg.engine.evaluation.result_files import Result
from mdg.engine.run_report.runs import Record, Run, number
from mdg.metrics.visibility import SHOWN_IN

WIDTH, HEIGHT = 360.0, 216.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 10.0, 34.0
MOST_POINTS = 300  # of a line; more are means of neighbours
DOTTED = 40  # a line of so few points shows each of them
COLOURS = 7  # of the page; further lines take them again with dashes
DASHES = ("", "6 3", "2 3", "8 3 2 3")
TICKS = 5
Point = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    """A number on an axis: where it stands, and as text."""

    place: float
    text: str


@dataclass(frozen=True)
class Curve:
    """A line of a chart.

    Attributes:
        name: For the legend.
        colour: Its place in the colours of the page.
        dash: ``stroke-dasharray``.
        points: ``points`` of a polyline.
        dots: x, y and text of its points, where they are few.
    """

    name: str
    colour: int
    dash: str
    points: str
    dots: list[tuple[str, str, str]]


@dataclass(frozen=True)
class Chart:
    """A chart with its axes; ``alt`` says in words what it shows, ``along`` what is counted from left to right."""

    title: str
    curves: list[Curve]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    alt: str
    along: str = "step"
    note: str = ""


def charts_of_run(run: Run) -> list[Chart]:
    """Losses, learning rate and validation of one run; those that its log knows."""
    terms = _names(run.train, {"kind", "step", "epoch", "lr", "skipped_steps"})
    losses = {name: _series(run.train, name) for name in sorted(terms, key=lambda name: name != "loss")}
    groups = {
        f"mIoU {name.removeprefix('mIoU_')}": _series(run.evals, name)
        for name in _names(run.evals, set())
        if name.startswith("mIoU_") and name.removeprefix("mIoU_") not in SHOWN_IN
    }
    scores = {name.replace("_", " "): _series(run.evals, name) for name in ("mIoU", "mAcc", "pixel_accuracy")}
    return _drawn(
        [
            ("training loss and its terms", losses),
            ("learning rate", {"learning rate": _series(run.train, "lr")}),
            (_validation_title([run]), {"mIoU": scores.pop("mIoU"), **groups, **scores}),
        ],
        [run],
    )


def reliability_chart(result: Result) -> list[Chart]:
    """Whether the network is right as often as it says, by what it says; nothing where results do not hold that."""
    told = result.content.get("calibration") or {"bins": [], "expected_calibration_error": None}
    points: list[Point] = [
        (100 * part["confidence"] / part["pixels"], 100 * part["right"] / part["pixels"])
        for part in told["bins"]
        if part["pixels"]
    ]
    error = told["expected_calibration_error"]
    if not points or error is None:
        return []
    lines = {"right": points, "as it says": [(0.0, 0.0), (100.0, 100.0)]}
    title = f"reliability on {result.protocol.role}, per cent right; expected error {error:.2f} %"
    return [draw(title, lines, 100, "per cent confidence", (0.0, 100.0))]


def charts_of_runs(runs: Sequence[Run], names: Sequence[str]) -> list[Chart]:
    """The same of several runs: a line for each in every chart."""
    named = list(zip(names, runs, strict=True))
    return _drawn(
        [
            ("training loss", {name: _series(run.train, "loss") for name, run in named}),
            ("learning rate", {name: _series(run.train, "lr") for name, run in named}),
            (f"mIoU, {_validation_title(runs)}", {name: _series(run.evals, "mIoU") for name, run in named}),
        ],
        runs,
    )


def _validation_title(runs: Sequence[Run]) -> str:
    splits = sorted({str(record.get("split")) for run in runs for record in run.evals})
    return f"validation on {', '.join(splits)}, per cent"


def _drawn(parts: Sequence[tuple[str, dict[str, list[Point]]]], runs: Sequence[Run]) -> list[Chart]:
    last = max((record["step"] for run in runs for record in (*run.train, *run.evals)), default=0)
    return [draw(title, lines, last) for title, lines in parts if any(lines.values())]


def _names(records: Sequence[Record], without: set[str]) -> list[str]:
    names = dict.fromkeys(name for record in records for name, value in record.items() if number(value) is not None)
    return [name for name in names if name not in without]


def _series(records: Sequence[Record], name: str) -> list[Point]:
    values = ((record["step"], number(record.get(name))) for record in records)
    return [(float(step), value) for step, value in values if value is not None]


def draw(
    title: str,
    lines: dict[str, list[Point]],
    last: int,
    along: str = "step",
    span: tuple[float, float] | None = None,
) -> Chart:
    """A chart of lines over the steps from 0 to ``last``.

    Args:
        title: Stands above.
        lines: Points (step, value) by name, in order; a line without points is left out, and keeps its colour.
        last: The last step; at least 1 is drawn.
        along: What a step is called.
        span: The lowest and highest value that the axis is to hold; None takes those of the lines.
    """
    values = [y for points in lines.values() for _, y in points]
    y_low, y_high, y_ticks = _axis(*(span or (min(values), max(values))))
    x_high = float(max(last, 1))

    def place(point: Point) -> Point:
        x = LEFT + (WIDTH - LEFT - RIGHT) * point[0] / x_high
        y = HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (point[1] - y_low) / (y_high - y_low)
        return x, y

    curves = []
    for index, (name, points) in enumerate(lines.items()):
        if points:
            dash = DASHES[index // COLOURS % len(DASHES)]
            curves.append(_curve(name, index % COLOURS, dash, thinned(points), place, along))
    thin = max(-(-len(points) // MOST_POINTS) for points in lines.values())
    return Chart(
        title,
        curves,
        [Tick(place((x, y_low))[0], _number_text(x)) for x in _nice(0.0, x_high)],
        [Tick(place((0, y))[1], _number_text(y)) for y in y_ticks],
        _alt(title, lines, along),
        along,
        f"points are means of {thin} records" if thin > 1 else "",
    )


def _curve(
    name: str, colour: int, dash: str, points: list[Point], place: Callable[[Point], Point], along: str
) -> Curve:
    at = [place(point) for point in points]
    dots = [
        (f"{x:.1f}", f"{y:.1f}", f"{name}: {value:.4g} at {along} {step:.12g}")
        for (x, y), (step, value) in zip(at, points, strict=True)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    return Curve(name, colour, dash, line, dots if len(points) <= DOTTED else [])


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most so many points: each the mean of as many neighbours, the last of what is left."""
    size = max(1, -(-len(points) // most))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def _alt(title: str, lines: dict[str, list[Point]], along: str) -> str:
    told = [
        f"{name} from {points[0][1]:.4g} at {along} {points[0][0]:.12g} "
        f"to {points[-1][1]:.4g} at {along} {points[-1][0]:.12g}"
        for name, points in lines.items()
        if points
    ]
    return f"{title}: {'; '.join(told)}"


def _axis(low: float, high: float) -> tuple[float, float, list[float]]:
    """Ends of an axis that holds the values, and its ticks."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # a single value
        room = abs(high) * 0.05 or 1.0
        low, high = low - room, high + room
    ticks = _nice(low, high)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else high - low
    if low < ticks[0]:
        ticks.insert(0, ticks[0] - step)
    if high > ticks[-1]:
        ticks.append(ticks[-1] + step)
    return ticks[0], ticks[-1], ticks


def _nice(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten inside [low, high], about :data:`TICKS` of them."""
    raw = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    return [index * step for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _number_text(value: float) -> str:
    """ "0.5", "300", "12,000", "2e6", "8e-4"."""
    size = abs(value)
    if size < 1e-12:
        return "0"
    if 0.001 <= size < 1e6:
        return f"{value:,.6g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
