"""Curves as the geometry of an SVG: scales, ticks, paths; the template draws it and escapes what it writes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .history import Curve

WIDTH, HEIGHT = 420, 190  # px of the drawing, margins included
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 24


@dataclass(frozen=True)
class Line:
    """One curve: ``path`` is an SVG path, ``points`` are (x, y, step, value) for who points at it."""

    name: str
    place: int  # among the runs: its colour
    path: str
    points: list[tuple[float, float, int, str]]
    lone: bool  # a single point, which a path would not show


@dataclass(frozen=True)
class Mark:
    """A dashed line at a value that means something."""

    y: float
    label: str


@dataclass(frozen=True)
class Chart:
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


def draw(curves: Sequence[tuple[str, int, Curve]], marks: Sequence[tuple[float, str]] = (), unit: str = "") -> Chart:
    """A chart over epochs of ``curves``, each (name, place among the runs, points), not all of them empty.

    ``marks`` are (value, label); those far from every curve are left out, so that a curve is never squeezed flat.
    ``unit`` "%" says that values are shares.
    """
    points = [p for _, _, curve in curves for p in curve]
    low, high = min(p.value for p in points), max(p.value for p in points)
    reach = max(high - low, 0.05 * max(abs(high), abs(low)))
    shown = [(value, label) for value, label in marks if low - 0.6 * reach <= value <= high + 0.6 * reach]
    low, high = min([low, *(v for v, _ in shown)]), max([high, *(v for v, _ in shown)])
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
        dots = [(x(p.epoch), y(p.value), p.step, show(p.value, unit)) for p in curve]
        path = "M" + "L".join(f"{a:g} {b:g}" for a, b, _, _ in dots) if dots else ""
        lines.append(Line(name, place, path, dots, len(dots) == 1))
    return Chart(
        lines,
        [Mark(y(value), label) for value, label in shown],
        [(x(v), f"{v:g}") for v in ticks(start, end, 5)],
        [(y(v), show(v, unit)) for v in ticks(low, high, 4)],
    )


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers within [low, high], about so many."""
    rough = (high - low) / about
    if not rough > 0 or math.isinf(rough):
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((m * power for m in (1, 2, 5) if m * power >= rough), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def show(value: float, unit: str = "") -> str:
    """``value`` for people: three or four digits, a share as per cent."""
    if unit == "%":
        size = abs(value)
        return f"{100 * value:.{0 if size >= 0.1 or size == 0 else 1 if size >= 0.01 else 2}f} %"
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.2g}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
