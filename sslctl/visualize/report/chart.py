"""Curves as the geometry of an SVG: scales, ticks and paths, which the template draws and escapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .history import Curve

WIDTH, HEIGHT = 420, 190  # px of the drawing, margins included
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 24


@dataclass(frozen=True)
class Line:
    """A curve: ``path`` is an SVG path, ``points`` are (x, y, step, value) for the pointer."""

    name: str
    place: int  # among the runs, which sets its colour
    path: str
    points: list[tuple[float, float, int, str]]
    single: bool  # one point, which a path would not show


@dataclass(frozen=True)
class Mark:
    """A dashed line at a reference value."""

    y: float
    label: str


@dataclass(frozen=True)
class Chart:
    """A chart: its curves, reference lines and ticks, in px of the drawing."""

    lines: list[Line]
    marks: list[Mark]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def make_chart(
    curves: Sequence[tuple[str, int, Curve]], marks: Sequence[tuple[float, str]] = (), unit: str = ""
) -> Chart:
    """Lay out ``curves`` over epochs, each (name, place among the runs, points), at least one of them not empty.

    ``marks`` are (value, label); marks far from every curve are omitted, so that they do not flatten it. With the
    ``unit`` "%" values are shares.
    """
    points = [p for _, _, curve in curves for p in curve]
    low, high = min(p.value for p in points), max(p.value for p in points)
    reach = max(high - low, 0.05 * max(abs(high), abs(low)))
    visible = [(value, label) for value, label in marks if low - 0.6 * reach <= value <= high + 0.6 * reach]
    low, high = min([low, *(v for v, _ in visible)]), max([high, *(v for v, _ in visible)])
    if high - low < 1e-12:
        low, high = (0.0, 1.0) if low == 0 else (low - 0.5 * abs(low), high + 0.5 * abs(high))
    elif low >= 0 and low < 0.4 * high:
        low = 0.0
    start, end = min(p.epoch for p in points), max(p.epoch for p in points)
    end = end if end > start else start + 1

    def x(epoch: float) -> float:
        return round(LEFT + (epoch - start) / (end - start) * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    lines = []
    for name, place, curve in curves:
        dots = [(x(p.epoch), y(p.value), p.step, format_value(p.value, unit)) for p in curve]
        path = "M" + "L".join(f"{a:g} {b:g}" for a, b, _, _ in dots) if dots else ""
        lines.append(Line(name, place, path, dots, len(dots) == 1))
    return Chart(
        lines,
        [Mark(y(value), label) for value, label in visible],
        [(x(v), f"{v:g}") for v in ticks(start, end, 5)],
        [(y(v), format_value(v, unit)) for v in ticks(low, high, 4)],
    )


def ticks(low: float, high: float, about: int) -> list[float]:
    """Return round numbers within [low, high], ``about`` as many."""
    rough = (high - low) / about
    if not rough > 0 or math.isinf(rough):
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((m * power for m in (1, 2, 5) if m * power >= rough), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def format_value(value: float, unit: str = "") -> str:
    """Format ``value`` with three or four digits, a share as a percentage."""
    if unit == "%":
        size = abs(value)
        return f"{100 * value:.{0 if size >= 0.1 or size == 0 else 1 if size >= 0.01 else 2}f} %"
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.2g}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
