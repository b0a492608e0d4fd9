"""Colour of a whole batch, each image by its own factors: exact as torchvision's ColorJitter, or as one matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..runtime.device import send

Flags = NDArray[np.bool_]
Floats = NDArray[np.floating]

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow's mode L


def jitter(x: Tensor, factors: Floats, order: NDArray[np.int64]) -> Tensor:
    """Apply torchvision's ColorJitter by ``factors`` (N, 4), each image in its ``order`` (N, 4); in place.

    Brightness, contrast and saturation are one operation with different coefficients. So an image goes through three
    of those, and through hue before, between or after them.
    """
    hue_at = (order == HUE).argmax(1)
    blends = order[order != HUE].reshape(-1, 3)
    for position in range(4):
        where_chosen(
            x, (hue_at == position) & (factors[:, HUE] != 0), lambda part, rows: shift_hue(part, factors[rows, HUE])
        )
        if position < 3:
            which = blends[:, position]
            blend(x, which, np.take_along_axis(factors, which[:, None], 1)[:, 0])
    return x


def blend(x: Tensor, which: NDArray[np.int64], factor: Floats) -> Tensor:
    """Blend each image, ``factor`` to 1 - ``factor``, with black, its mean grey level or its grey version.

    Which of them ``which`` (N,) says: BRIGHTNESS, CONTRAST or SATURATION. In place.
    """
    keep = column(factor, x)
    if (which == BRIGHTNESS).all():
        return x.mul_(keep).clamp_(0, 255)
    gray = luma(x)
    level = gray.mean((1, 2, 3), keepdim=True) * column((1 - factor) * (which == CONTRAST), x)
    gray.mul_(column((1 - factor) * (which == SATURATION), x)).add_(level)
    return torch.addcmul(gray, x, keep, out=x).clamp_(0, 255)


def shift_hue(x: Tensor, turns: Floats) -> Tensor:
    """Turn the hue of HSV by ``turns`` (N,), without the way to HSV and back; in place.

    With hue h in sixths of a turn, red is low + (high - low) * clamp(|h - 3| - 1, 0, 1), and green and blue the
    complement about 2 and 4. Which channel is highest enters as factors 0 and 1: comparisons and selections cost a CPU
    ten times what arithmetic does.
    """
    r, g, b = x.unbind(1)  # (N, H, W)
    high = torch.maximum(torch.maximum(r, g), b)
    low = torch.minimum(torch.minimum(r, g), b)
    chroma = high - low
    not_red = (high - r).mul_(1e9).clamp_(max=1)
    not_green = (high - g).mul_(1e9).clamp_(max=1)
    if_red, if_green, if_blue = g - b, b - r, r - g
    if_blue.sub_(if_green).mul_(not_green).add_(if_green)
    h = if_blue.sub_(if_red).mul_(not_red).add_(if_red)
    h.div_(chroma.clamp(min=1e-6)).addcmul_(not_red, not_green.add_(1), value=2)
    h.add_(column(6 * turns, x)[:, 0])
    h.sub_(torch.floor(h / 6), alpha=6)
    for channel, start, centre, sign in ((r, low, 3, 1), (g, high, 2, -1), (b, high, 4, -1)):
        torch.addcmul(start, (h - centre).abs_().sub_(1).clamp_(0, 1), chroma, value=sign, out=channel)
    return x


def luma(x: Tensor) -> Tensor:
    """Return the grey version of (N, 3, H, W) as (N, 1, H, W)."""
    return (x[:, :1] * LUMA[0]).add_(x[:, 1:2], alpha=LUMA[1]).add_(x[:, 2:], alpha=LUMA[2])


def colour_matrix(
    factors: Floats, order: NDArray[np.int64], jittered: Flags, gray: Flags
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ``jitter``, then greying, of N images as matrices (N, 3, 3) and lifts (N, 3).

    The matrix is for each pixel, the lift for the image's mean colour: what it gives is added everywhere (contrast
    turns about the mean). Two things are not as in ``jitter``: hue is a rotation about the axis of greys, which keeps
    the sum of the channels where HSV keeps their extremes; and levels are clamped once, at the end.
    """
    n, luma_row = len(factors), np.array(LUMA)
    grays = np.broadcast_to(luma_row, (3, 3))
    matrix, lift = np.broadcast_to(np.eye(3), (n, 3, 3)), np.zeros((n, 3))
    for position in range(4):
        which = np.where(jittered, order[:, position], -1)
        f = np.where(jittered, np.take_along_axis(factors, order[:, position : position + 1], 1)[:, 0], 1.0)
        level = luma_row @ matrix + lift
        grows = (which == BRIGHTNESS) | (which == CONTRAST)  # the other two leave greys, and so the lift, alone
        lift = np.where(grows, f, 1)[:, None] * lift + np.where(which == CONTRAST, 1 - f, 0)[:, None] * level
        change = np.where((which == HUE)[:, None, None], _hue_rotation(f), f[:, None, None] * np.eye(3))
        change += np.where(which == SATURATION, 1 - f, 0)[:, None, None] * grays
        matrix = change @ matrix
    return np.where(gray[:, None, None], grays @ matrix, matrix), lift


def recolour(x: Tensor, matrix: NDArray[np.float64], lift: NDArray[np.float64]) -> Tensor:
    """Change ``x`` (N, 3, H, W) as ``colour_matrix`` says, clamped to 0 … 255."""
    weights, of_mean = (on_device(part.astype(np.float32), x.device) for part in (matrix, lift))
    pixels = x.flatten(2)
    added = (pixels.mean(2) * of_mean).sum(1)[:, None, None]
    return torch.baddbmm(added, weights, pixels).clamp_(0, 255).view_as(x)


def _hue_rotation(turns: Floats) -> Floats:
    """Return turns about the axis of greys (Rodrigues' formula), (N, 3, 3); red goes to green as in HSV."""
    angle = 2 * math.pi * turns[:, None, None]
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    turned: Floats = np.cos(angle) * np.eye(3) + (1 - np.cos(angle)) / 3 + np.sin(angle) * cross
    return turned


def where_chosen(x: Tensor, chosen: Flags, change: Callable[[Tensor, Any], Tensor]) -> None:
    """Write ``change(part, rows)`` back for the ``chosen`` images of ``x``; a block of rows is not copied."""
    rows = np.flatnonzero(chosen)
    if not len(rows):
        return
    if rows[-1] - rows[0] + 1 == len(rows):
        part = x[rows[0] : rows[-1] + 1]
        changed = change(part, rows)
        if changed is not part:
            part.copy_(changed)
    else:
        index = on_device(rows, x.device)
        x.index_copy_(0, index, change(x.index_select(0, index), rows))


def on_device(values: NDArray[Any], device: torch.device) -> Tensor:
    return send(torch.from_numpy(np.ascontiguousarray(values)), device)


def column(values: NDArray[Any], x: Tensor) -> Tensor:
    return on_device(values.astype(np.float32), x.device)[:, None, None, None]
