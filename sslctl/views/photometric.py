"""Flip, colour, blur and the rest of a view: a whole batch at once on its device, each image by its own parameters."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .recipe import ViewSpec

Flags = NDArray[np.bool_]
Floats = NDArray[np.floating]

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
SLOTS = 11  # uniform numbers of a view, in the order in which draw() takes them
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow's mode L

_ORDERS = np.array(list(itertools.permutations(range(4))))


class Draws(NamedTuple):
    """What happens to each of N views; on the host, since which images an operation takes is decided there."""

    flip: Flags  # (N,)
    jitter: Flags
    factors: Floats  # (N, 4) of brightness, contrast, saturation; of hue the shift in turns
    order: NDArray[np.int64]  # (N, 4): which of the four comes first, second, third, last
    grayscale: Flags
    blur: Flags
    sigma: Floats  # (N,) pixels
    solarize: Flags

    def take(self, rows: NDArray[np.int64] | slice) -> Draws:
        return Draws._make(part[rows] for part in self)


def draw(view: ViewSpec, u: NDArray[np.float64]) -> Draws:
    """The draws of N views from ``u`` (N, SLOTS), uniform in [0, 1)."""
    reach = np.array(view.jitter)
    low, high = np.maximum(1 - reach, 0), 1 + reach
    low[HUE], high[HUE] = -reach[HUE], reach[HUE]
    smooth, rough = view.blur_sigma
    return Draws(
        flip=(u[:, 0] < view.flip_p) & ("flip" in view.order),
        jitter=u[:, 1] < view.jitter_p,
        factors=(low + (high - low) * u[:, 2:6]).astype(np.float32),
        order=_ORDERS[(u[:, 6] * len(_ORDERS)).astype(np.int64)],
        grayscale=u[:, 7] < view.grayscale_p,
        blur=u[:, 8] < view.blur_p,
        sigma=(smooth + (rough - smooth) * u[:, 9]).astype(np.float32),
        solarize=u[:, 10] < view.solarize_p,
    )


def batching_order(draws: Draws) -> NDArray[np.int64]:
    """An order of the N views in which jitter takes neighbours: rows in one piece need no gathering."""
    hue_at = (draws.order == HUE).argmax(1)
    return np.argsort(np.where(draws.jitter, hue_at, 4), kind="stable")


def apply(x: Tensor, view: ViewSpec, draws: Draws) -> Tensor:
    """``view``'s operations but the flip, in its order, on ``x`` float32 (N, 3, H, W) of grey levels 0–255; in place.

    Every one of them commutes with the flip, which therefore happens where it is cheapest: before, with the crop.
    """
    for name in view.order:
        match name:
            case "jitter":
                _where(x, draws.jitter, lambda part, rows: jitter(part, draws.factors[rows], draws.order[rows]))
            case "grayscale":
                _where(x, draws.grayscale, lambda part, rows: luma(part).expand_as(part))
            case "blur":
                _where(x, draws.blur, lambda part, rows: blur(part, draws.sigma[rows], view.blur_kernel))
            case "solarize":
                _where(x, draws.solarize, lambda part, rows: solarize(part, view.solarize_threshold))
    return x


def flip(x: Tensor, chosen: Flags) -> Tensor:
    """The ``chosen`` (N,) of ``x`` (N, C, H, W) mirrored left to right; in place."""
    _where(x, chosen, lambda part, rows: part.flip(-1))
    return x


def jitter(x: Tensor, factors: Floats, order: NDArray[np.int64]) -> Tensor:
    """torchvision's ColorJitter by ``factors`` (N, 4), each image in its own ``order`` (N, 4); in place.

    Brightness, contrast and saturation are one operation with different coefficients. So an image goes through three
    of those, and through hue before, between or after them.
    """
    hue_at = (order == HUE).argmax(1)
    blends = order[order != HUE].reshape(-1, 3)
    for position in range(4):
        _where(x, (hue_at == position) & (factors[:, HUE] != 0), lambda part, rows: shift_hue(part, factors[rows, HUE]))
        if position < 3:
            which = blends[:, position]
            blend(x, which, np.take_along_axis(factors, which[:, None], 1)[:, 0])
    return x


def blend(x: Tensor, which: NDArray[np.int64], factor: Floats) -> Tensor:
    """Each image ``factor`` times itself, plus 1 - ``factor`` times black, its mean grey level or its grey version.

    Which of them ``which`` (N,) says: BRIGHTNESS, CONTRAST or SATURATION. In place.
    """
    keep = _column(factor, x)
    if (which == BRIGHTNESS).all():
        return x.mul_(keep).clamp_(0, 255)
    gray = luma(x)
    level = gray.mean((1, 2, 3), keepdim=True) * _column((1 - factor) * (which == CONTRAST), x)
    gray.mul_(_column((1 - factor) * (which == SATURATION), x)).add_(level)
    return torch.addcmul(gray, x, keep, out=x).clamp_(0, 255)


def shift_hue(x: Tensor, turns: Floats) -> Tensor:
    """The hue of HSV turned by ``turns`` (N,), without the way to HSV and back; in place.

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
    h.add_(_column(6 * turns, x)[:, 0])
    h.sub_(torch.floor(h / 6), alpha=6)
    for channel, start, centre, sign in ((r, low, 3, 1), (g, high, 2, -1), (b, high, 4, -1)):
        torch.addcmul(start, (h - centre).abs_().sub_(1).clamp_(0, 1), chroma, value=sign, out=channel)
    return x


def luma(x: Tensor) -> Tensor:
    """The grey version of (N, 3, H, W) as (N, 1, H, W)."""
    return (x[:, :1] * LUMA[0]).add_(x[:, 1:2], alpha=LUMA[1]).add_(x[:, 2:], alpha=LUMA[2])


def solarize(x: Tensor, threshold: int) -> Tensor:
    """Grey levels from ``threshold`` on inverted, as Pillow's; a level counts as the whole number nearest to it."""
    above = (x - (threshold - 0.5)).mul_(1e9).clamp_(0, 1)
    return above.mul_(255 - 2 * x).add_(x)


def blur(x: Tensor, sigma: Floats, kernel: Literal["pillow", "gaussian"] = "pillow") -> Tensor:
    """Each image blurred by its own ``sigma`` (N,) in pixels; edges are repeated outwards.

    "pillow" is PIL's GaussianBlur(radius=sigma): along each axis three boxes. PIL rounds to whole grey levels after all
    of the six, which this does not: on photographs that is 0.4 levels in the mean and 3 at most. "gaussian" is the
    kernel of SimCLR and BYOL, of a tenth of the image's width; their code takes the outside for black.
    """
    if kernel == "pillow":
        taps, passes = box_taps(sigma), 3
    else:
        taps, passes = gaussian_taps(sigma, max(1, x.shape[3] // 20)), 1
    weights = [_column(tap, x) for tap in taps.T]
    reach = len(weights) - 1
    for axis, edges in ((3, (reach, reach, 0, 0)), (2, (0, 0, reach, reach))):
        length = x.shape[axis]
        for _ in range(passes):
            z = F.pad(x, edges, mode="replicate")
            x = z.narrow(axis, reach, length) * weights[0]
            for k in range(1, reach + 1):
                pair = z.narrow(axis, reach - k, length) + z.narrow(axis, reach + k, length)
                x.addcmul_(pair, weights[k])
    return x


def box_taps(sigma: Floats) -> Floats:
    """A third of a Gaussian's variance as a box, centre and one side of it: (N, reach + 1) for the widest.

    Its ends weigh a fraction, so that three of them have exactly the variance sigma² (Gwosdek et al. 2011, "Theoretical
    foundations of Gaussian convolution by extended box filtering").
    """
    variance = sigma.astype(np.float64)[:, None] ** 2 / 3
    whole = np.floor((np.sqrt(12 * variance + 1) - 1) / 2)
    end = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    k = np.arange(int(whole.max()) + 2)
    taps: Floats = np.where(k <= whole, 1.0, np.where(k == whole + 1, end, 0.0)) / (2 * (whole + end) + 1)
    return taps


def gaussian_taps(sigma: Floats, reach: int) -> Floats:
    """A Gaussian cut at ``reach`` pixels, centre and one side of it: (N, reach + 1)."""
    taps = np.exp(-(np.arange(reach + 1) ** 2) / (2 * sigma.astype(np.float64)[:, None] ** 2))
    taps /= 2 * taps.sum(1, keepdims=True) - taps[:, :1]
    return taps


def _where(x: Tensor, chosen: Flags, change: Callable[[Tensor, Any], Tensor]) -> None:
    """``change(part, rows)`` for the ``chosen`` images of ``x``, written back; rows in one piece are not copied."""
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
    return torch.from_numpy(np.ascontiguousarray(values)).to(device, non_blocking=True)


def _column(values: NDArray[Any], x: Tensor) -> Tensor:
    return on_device(values.astype(np.float32), x.device)[:, None, None, None]
