"""Curves as geometry: points where they belong, round ticks, marks that do not squeeze the curve."""

from __future__ import annotations

import pytest

from sslctl.visualize.report.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, format_value, make_chart, ticks
from sslctl.visualize.report.history import Point


def curve(*values: float) -> list[Point]:
    return [Point(10 * i, float(i), value) for i, value in enumerate(values)]


def test_the_first_point_is_left_and_the_largest_is_at_the_top() -> None:
    (line,) = make_chart([("a", 2, curve(5.0, 10.0, 7.5))]).lines
    (x0, y0, step, text), (x1, y1, *_), (x2, y2, *_) = line.points
    assert (x0, x2, y1, y0) == (LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM)
    assert x1 == (x0 + x2) / 2 and y2 == (y0 + y1) / 2 and (line.place, step, text) == (2, 0, "5")
    assert line.path == f"M{x0:g} {y0:g}L{x1:g} {y1:g}L{x2:g} {y2:g}" and not line.single


def test_scales_that_begin_near_nought_begin_there() -> None:
    chart = make_chart([("a", 0, curve(1.0, 10.0))])
    assert chart.y_ticks[0] == (HEIGHT - BOTTOM, "0")
    assert make_chart([("a", 0, curve(9.0, 10.0))]).y_ticks[0][1] != "0"


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_a_single_point_and_a_flat_curve_are_drawn(value: float) -> None:
    chart = make_chart([("a", 0, curve(value))])
    assert chart.lines[0].single and chart.lines[0].points[0][0] == LEFT
    flat = make_chart([("a", 0, curve(value, value))])
    assert len({y for _, y, *_ in flat.lines[0].points}) == 1 and flat.y_ticks


def test_marks_far_from_every_curve_are_left_out() -> None:
    chart = make_chart([("a", 0, curve(4.0, 5.0))], marks=[(4.5, "near"), (5.5, "just above"), (50.0, "far")])
    assert [mark.label for mark in chart.marks] == ["near", "just above"]
    assert all(TOP <= mark.y <= HEIGHT - BOTTOM for mark in chart.marks)


@pytest.mark.parametrize(
    ("low", "high", "about", "expected"),
    [
        (0.0, 10.0, 5, [0, 2, 4, 6, 8, 10]),
        (0.13, 0.47, 4, [0.2, 0.3, 0.4]),
        (-1.0, 1.0, 4, [-1, -0.5, 0, 0.5, 1]),
        (3.0, 3.0, 4, [3]),
        (0.0, float("inf"), 4, [0]),
    ],
)
def test_ticks_are_round_and_within(low: float, high: float, about: int, expected: list[float]) -> None:
    assert ticks(low, high, about) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.5, "", "0.5"), (1234.6, "", "1235"), (1e-5, "", "1e-05"), (123456.0, "", "1.2e+05"), (0.0, "", "0"),
     (0.423, "%", "42 %"), (0.0423, "%", "4.2 %"), (0.00423, "%", "0.42 %"), (0.0, "%", "0 %")],
)  # fmt: skip
def test_numbers_for_people(value: float, unit: str, text: str) -> None:
    assert format_value(value, unit) == text
