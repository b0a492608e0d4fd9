"""Flip, colour, blur and the rest of a view: a whole batch at once on its device, each image by its own parameters."""

from __future__ import annotations

import itertools
from typing import Literal, NamedTuple

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .colour import HUE, Flags, Floats, colour_matrix, column, jitter, luma, recolour, where_chosen
from .recipe import ViewSpec

SLOTS = 11  # uniform numbers of a view, in the order in which draw() takes them

_ORDERS = np.array(list(itertools.permutations(range(4))))


class Draws(NamedTuple):
    """The random decisions for N views, on the host, where the images of an operation are chosen."""

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
    """Draw for N views from ``u`` (N, SLOTS), uniform in [0, 1)."""
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
    """Return an order of the N views in which jittered ones are neighbours: a block needs no gathering."""
    hue_at = (draws.order == HUE).argmax(1)
    return np.argsort(np.where(draws.jitter, hue_at, 4), kind="stable")


def apply(x: Tensor, view: ViewSpec, draws: Draws) -> Tensor:
    """Apply ``view``'s operations but the flip, in its order, to grey levels ``x`` float32 (N, 3, H, W).

    ``x`` may be overwritten. Every operation commutes with the flip, which therefore happens where it is cheapest:
    before, with the crop.
    """
    order = [name for name in view.order if name != "flip"]
    by_matrix = view.colour == "matrix" and "jitter" in order
    with_gray = by_matrix and order[order.index("jitter") :][1:2] == ["grayscale"]
    for name in order:
        match name:
            case "jitter" if by_matrix:
                gray = draws.grayscale & with_gray
                x = recolour(x, *colour_matrix(draws.factors, draws.order, draws.jitter, gray))
            case "jitter":
                where_chosen(x, draws.jitter, lambda part, rows: jitter(part, draws.factors[rows], draws.order[rows]))
            case "grayscale" if not with_gray:
                where_chosen(x, draws.grayscale, lambda part, rows: luma(part).expand_as(part))
            case "blur":
                where_chosen(x, draws.blur, lambda part, rows: blur(part, draws.sigma[rows], view.blur_kernel))
            case "solarize":
                where_chosen(x, draws.solarize, lambda part, rows: solarize(part, view.solarize_threshold))
    return x


def flip(x: Tensor, chosen: Flags) -> Tensor:
    """Mirror the ``chosen`` (N,) of ``x`` (N, C, H, W) left to right, in place."""
    where_chosen(x, chosen, lambda part, rows: part.flip(-1))
    return x


def solarize(x: Tensor, threshold: int) -> Tensor:
    """Invert grey levels from ``threshold`` on, as Pillow; a level counts as the nearest whole number."""
    above = (x - (threshold - 0.5)).mul_(1e9).clamp_(0, 1)
    return above.mul_(255 - 2 * x).add_(x)


def blur(x: Tensor, sigma: Floats, kernel: Literal["pillow", "gaussian"] = "pillow") -> Tensor:
    """Blur each image by its own ``sigma`` (N,) in pixels; edges are repeated outwards.

    "pillow" is PIL's GaussianBlur(radius=sigma): along each axis three boxes. PIL rounds to whole grey levels after all
    of the six, which this does not: on photographs that is 0.4 levels in the mean and 3 at most. "gaussian" is the
    kernel of SimCLR and BYOL, of a tenth of the image's width; their code takes the outside for black.
    """
    if kernel == "pillow":
        taps, passes = box_taps(sigma), 3
    else:
        taps, passes = gaussian_taps(sigma, max(1, x.shape[3] // 20)), 1
    weights = [column(tap, x) for tap in taps.T]
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
    """Return a third of a Gaussian's variance as a box, centre and one side: (N, reach + 1).

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
    """Return a Gaussian cut at ``reach`` pixels, centre and one side: (N, reach + 1)."""
    taps = np.exp(-(np.arange(reach + 1) ** 2) / (2 * sigma.astype(np.float64)[:, None] ** 2))
    taps /= 2 * taps.sum(1, keepdims=True) - taps[:, :1]
    return taps
