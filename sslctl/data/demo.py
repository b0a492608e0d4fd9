"""The embedded set: 16 drawn shapes in random pose and colour, with masks; any number and size, always the same."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .decode import Pixels
from .demo_outlines import SHAPES
from .folder import Split
from .source import ArraySource, Indices

Floats = NDArray[Any]

SIZE = 32
COUNTS: dict[Split, int] = {"train": 4000, "val": 1000}

_VERSION = 1  # of what is drawn; part of the fingerprint
_FINE = 4  # masks are drawn that much larger and averaged down
_CHUNK = 250
_LUMA = np.array([0.3, 0.6, 0.1])
_CONTRAST = 0.25
_NOISE = 0.03


class Level(NamedTuple):
    fills: tuple[str, ...]
    grounds: tuple[str, ...]


DEMOS = {
    "demo": Level(("flat", "graded"), ("flat", "graded")),
    # Busy grounds let an objective tell images by their ground: an honest test of what a method keys on.
    "demo-hard": Level(
        ("flat", "graded", "noise", "stripes"), ("flat", "graded", "noise", "stripes", "checks", "dots")
    ),
}

# How much of the second colour a pattern shows on average.
_SHARE = {"flat": 0.0, "graded": 0.5, "noise": 0.5, "stripes": 0.5, "checks": 0.5, "dots": 0.08}


class DemoSource(ArraySource):
    """The demo set, with ``masks`` (n, H, W) that are 255 on the shape and 0 elsewhere."""

    masks: Pixels

    def take(self, indices: Indices) -> DemoSource:
        part = super().take(indices)
        part.masks = self.masks[indices]
        return part


def open_demo(name: str, split: Split, *, n: int | None = None, size: int = SIZE, seed: int = 0) -> DemoSource:
    """Draw the set ``name`` of DEMOS: 4000 images to train on, 1000 others for evaluation.

    Image i depends on (name, split, size, seed, i) alone, so a smaller ``n`` gives the first of the same images.
    """
    n = COUNTS[split] if n is None else n
    stream = 2 * seed + (1 if split == "train" else 2)
    labels = np.arange(n, dtype=np.int64) % len(SHAPES)
    names = list(SHAPES)
    coverage = _coverages([names[label] for label in labels], size, stream)
    images = _compose(coverage, DEMOS[name], stream)
    source = DemoSource(name, images, labels, names, f"{name} v{_VERSION} {split} size {size} seed {seed}")
    source.masks = np.where(coverage > 127, np.uint8(255), np.uint8(0))
    return source


def _coverages(names: list[str], size: int, stream: int) -> Pixels:
    """Return uint8 (n, H, W): how much of each pixel the shape covers, in random pose, size and shear."""
    n, fine = len(names), size * _FINE
    u = _uniform(stream, 0, n, 10)
    turn, radius = _within(u[:, 0], -0.35, 0.35), _within(u[:, 1], 0.24, 0.44) * fine
    aspect, shear = _within(u[:, 2:4], 0.75, 1.15), _within(u[:, 4], -0.2, 0.2)
    flip = np.where(u[:, 5] < 0.5, -1.0, 1.0)
    margin = np.minimum(1.02 * radius, fine / 2)[:, None]
    centre = margin + u[:, 6:8] * (fine - 2 * margin)
    cos, sin = np.cos(turn), np.sin(turn)
    rotate = np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], 1)
    stretch = np.stack([np.stack([aspect[:, 0] * flip, shear], 1), np.stack([0 * shear, aspect[:, 1]], 1)], 1)
    poses = radius[:, None, None] * (rotate @ stretch)  # (n, 2, 2)
    out = np.empty((n, size, size), np.uint8)
    canvas, sheet = Image.new("L", (fine, fine)), Image.new("L", (fine, fine * min(n, _CHUNK)))
    draw = ImageDraw.Draw(canvas)
    for start in range(0, n, _CHUNK):
        end = min(start + _CHUNK, n)
        for i in range(start, end):
            canvas.paste(0, (0, 0, fine, fine))
            for filled, outline in SHAPES[names[i]](u[i, 8], u[i, 9]):
                draw.polygon((outline @ poses[i].T + centre[i]).ravel().tolist(), fill=255 * filled)
            sheet.paste(canvas, (0, fine * (i - start)))
        out[start:end] = np.asarray(sheet.reduce(_FINE)).reshape(-1, size, size)[: end - start]
    return out


def _compose(coverage: Pixels, level: Level, stream: int) -> Pixels:
    """Fill the shapes and lay them on grounds of another brightness, with pixel noise: uint8 (n, H, W, 3)."""
    n, size, _ = coverage.shape
    fill_kinds, ground_kinds, colors = _paints(n, level, stream)
    angles, waves = _uniform(stream, 1, n, 2) * math.pi, _uniform(stream, 2, n, 4)
    images = np.empty((n, size, size, 3), np.uint8)
    for k, start in enumerate(range(0, n, _CHUNK)):
        part = slice(start, start + _CHUNK)
        rng = _generator(stream, 3, k)
        noise = rng.standard_normal((_CHUNK, size, size))
        textures = rng.standard_normal((2, _CHUNK, size, size)) if "noise" in level.fills else None
        shares = []
        for side, kinds in enumerate((fill_kinds, ground_kinds)):
            texture = None if textures is None else textures[side][: len(kinds[part])]
            wave = waves[part, 2 * side : 2 * side + 2]
            shares.append(_patterns(kinds[part], size, angles[part, side], wave, texture))
        cover = coverage[part] / 255
        grain = _NOISE * noise[: len(cover)]
        for channel in range(3):
            fill, ground = (
                _blend(colors[part, side, :, channel], share) for side, share in zip((0, 1), shares, strict=True)
            )
            fill -= ground
            fill *= cover
            fill += ground
            fill += grain
            np.clip(fill, 0, 1, out=fill)
            fill *= 255
            images[part, :, :, channel] = fill
    return images


def _blend(two: Floats, share: Floats) -> Floats:
    """Blend the ``two`` values (n, 2) of each image by ``share`` (n, H, W) of the second."""
    a, b = two[:, 0, None, None], two[:, 1, None, None]
    mixed = (b - a) * share
    mixed += a
    return np.asarray(mixed)


def _paints(n: int, level: Level, stream: int) -> tuple[NDArray[Any], NDArray[Any], Floats]:
    """Draw kinds of fill and ground (n,), and two colours of each (n, 2, 2, 3) that differ in brightness."""
    kinds = np.empty((2, n), object)
    colors = np.empty((n, 2, 2, 3))
    todo = np.arange(n)
    for attempt in range(12):
        u = _uniform(stream, 4 + attempt, n, 14)[todo]
        means = []
        for side, choices in enumerate(level):
            kinds[side, todo] = np.array(choices, object)[(u[:, 12 + side] * len(choices)).astype(int)]
            colors[todo, side] = _rgb(u[:, 6 * side : 6 * side + 6].reshape(-1, 2, 3))
            share = np.array([_SHARE[kind] for kind in kinds[side, todo]])[:, None]
            means.append((colors[todo, side, 0] * (1 - share) + colors[todo, side, 1] * share) @ _LUMA)
        todo = todo[np.abs(means[0] - means[1]) <= _CONTRAST]
        if not len(todo):
            break
    return kinds[0], kinds[1], colors


def _patterns(kinds: NDArray[Any], size: int, angle: Floats, wave: Floats, texture: Floats | None) -> Floats:
    """Return (n, H, W) in [0, 1]: where each pattern shows its second colour."""
    grid = np.linspace(-1, 1, size)
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    along = cos * grid[None, None, :] + sin * grid[None, :, None]  # (n, H, W)
    across = cos * grid[None, :, None] - sin * grid[None, None, :]
    pace, phase = wave[:, 0, None, None], 6 * wave[:, 1, None, None]
    share = np.zeros_like(along)
    for kind in set(kinds.tolist()) - {"flat"}:
        at = kinds == kind
        u, v, p = along[at], across[at], pace[at]
        if kind == "graded":
            share[at] = (u / 1.42 + 1) / 2
        elif kind == "stripes":
            share[at] = np.sin(u * _within(p, 6, 16) + phase[at]) > 0
        elif kind == "checks":
            share[at] = np.sin(u * _within(p, 5, 11)) * np.sin(v * _within(p, 5, 11)) > 0
        elif kind == "dots":
            share[at] = np.cos(u * _within(p, 6, 12)) + np.cos(v * _within(p, 6, 12)) > 0.9
        else:
            assert texture is not None
            share[at] = _clouds(texture[at], _within(p, 1.2, 2.4))
    return share


def _clouds(white: Floats, exponent: Floats) -> Floats:
    """Draw noise (n, H, W) whose power falls with frequency to the ``exponent`` (n, 1, 1), within [0, 1]."""
    size = white.shape[-1]
    square = np.fft.fftfreq(size)[:, None] ** 2 + np.fft.rfftfreq(size)[None] ** 2
    square[0, 0] = np.inf
    field = np.fft.irfft2(np.fft.rfft2(white) * square ** (-exponent / 2), s=(size, size))
    low, high = field.min((1, 2), keepdims=True), field.max((1, 2), keepdims=True)
    return np.asarray((field - low) / (high - low + 1e-6))


def _rgb(u: Floats) -> Floats:
    """Return colours (…, 3) of uniform hue, saturation up to 0.9 and value from 0.1, from uniforms (…, 3)."""
    hue, saturation, value = 6 * u[..., 0, None], 0.9 * u[..., 1, None], _within(u[..., 2, None], 0.1, 1)
    k = (np.array([5, 3, 1]) + hue) % 6
    return np.asarray(value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1))


def _within(u: Floats, low: float, high: float) -> Floats:
    return low + (high - low) * u


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def _uniform(stream: int, purpose: int, n: int, width: int) -> Floats:
    """Draw (n, width) in [0, 1); row i does not depend on n."""
    return _generator(stream, purpose).random((n, width))
