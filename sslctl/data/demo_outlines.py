"""The outlines of the 16 shapes of the demo set, within about [-1, 1], y downwards."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[Any]
Strokes = list[tuple[bool, Points]]
"""Polygons (k, 2) laid over each other: True fills, False erases."""

_TURN = np.linspace(0, 2 * math.pi, 40, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], 1)


def _circle(x: float, y: float, radius: float) -> Points:
    return _CIRCLE * radius + (x, y)


def _corners(radii: Sequence[float], first: float = -math.pi / 2) -> Points:
    """Return points at equal angles, at ``radii`` in turn."""
    angles = first + 2 * math.pi * np.arange(len(radii)) / len(radii)
    return np.asarray(np.array(radii)[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1))


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def _mirrored(*right: tuple[float, float]) -> Points:
    """A polygon symmetric about x = 0, from its right half, top to bottom; points on the axis count once."""
    half = np.array(right)
    left = half[half[:, 0] != 0][::-1] * (-1, 1)
    return np.concatenate([half, left])


def _heart() -> Points:
    t = np.linspace(0, 2 * math.pi, 60)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], 1) / 17


def _between(u: float, low: float, high: float) -> float:
    return low + (high - low) * u


def _ring(u: float, v: float) -> Strokes:
    return [(True, _circle(0, 0, 1)), (False, _circle(0, 0, _between(u, 0.45, 0.65)))]


def _cross(u: float, v: float) -> Strokes:
    w = _between(u, 0.25, 0.4)
    return [(True, _mirrored((w, -1), (w, -w), (1, -w), (1, w), (w, w), (w, 1)))]


def _moon(u: float, v: float) -> Strokes:
    return [(True, _circle(0, 0, 1)), (False, _circle(_between(u, 0.4, 0.6), -0.1, _between(v, 0.75, 0.9)))]


def _arrow(u: float, v: float) -> Strokes:
    w, y = _between(u, 0.2, 0.32), _between(v, -0.1, 0.2)
    return [(True, _mirrored((0, -1), (0.85, y), (w, y), (w, 1)))]


def _house(u: float, v: float) -> Strokes:
    eaves, door = _between(u, -0.25, 0), _between(v, 0.15, 0.25)
    return [(True, _mirrored((0, -1), (0.95, eaves), (0.7, eaves), (0.7, 1))), (False, _box(-door, 0.35, door, 1))]


_DISK = _circle(0, 0, 1)
_TRIANGLE = _corners([1, 1, 1])
_SQUARE = _corners([1.1] * 4, math.pi / 4)
_HEART = _heart()
_HOURGLASS = _mirrored((0.8, -1), (0.12, 0), (0.8, 1))
_BOLT = np.array([(0.15, -1), (-0.6, 0.15), (-0.08, 0.15), (-0.3, 1), (0.6, -0.25), (0.05, -0.25), (0.45, -1)])
_FISH: Strokes = [
    (True, _CIRCLE * (0.71, 0.55) + (-0.2, 0)),
    (True, np.array([(0.35, 0), (1, -0.5), (1, 0.5)])),
    (False, _circle(-0.55, -0.12, 0.1)),
]
_BOWL = np.array([(-0.8, -0.7), (0.45, -0.7), (0.3, 0.8), (-0.65, 0.8)])
_CUP: Strokes = [(True, _circle(0.5, -0.1, 0.42)), (False, _circle(0.5, -0.1, 0.22)), (True, _BOWL)]
_TREE: Strokes = [
    (True, _mirrored((0, -1), (0.6, -0.2), (0.3, -0.2), (0.85, 0.55))),
    (True, _box(-0.15, 0.5, 0.15, 1)),
]
_KEY: Strokes = [
    (True, _circle(0, -0.6, 0.42)),
    (False, _circle(0, -0.6, 0.2)),
    (True, _box(-0.1, -0.25, 0.1, 1)),
    (True, _box(0, 0.5, 0.45, 0.65)),
    (True, _box(0, 0.8, 0.35, 0.98)),
]

# Sorted by name, as classes are. Each takes two numbers in [0, 1): what varies within the shape.
SHAPES: dict[str, Callable[[float, float], Strokes]] = {
    "arrow": _arrow,
    "bolt": lambda u, v: [(True, _BOLT)],
    "cross": _cross,
    "cup": lambda u, v: _CUP,
    "disk": lambda u, v: [(True, _DISK)],
    "fish": lambda u, v: _FISH,
    "heart": lambda u, v: [(True, _HEART)],
    "hourglass": lambda u, v: [(True, _HOURGLASS)],
    "house": _house,
    "key": lambda u, v: _KEY,
    "moon": _moon,
    "ring": _ring,
    "square": lambda u, v: [(True, _SQUARE)],
    "star": lambda u, v: [(True, _corners([1, _between(u, 0.38, 0.5)] * 5))],
    "tree": lambda u, v: _TREE,
    "triangle": lambda u, v: [(True, _TRIANGLE)],
}
