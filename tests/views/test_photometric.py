"""Blur, solarization and flips against those of Pillow and torchvision; which are drawn, and in what order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ImageFilter, ImageOps
from safetensors.numpy import load_file
from torch import Tensor
from torchvision.transforms.v2 import functional as F2

from sslctl.views import colour
from sslctl.views import photometric as ours
from sslctl.views.keyed import uniforms
from sslctl.views.recipe import Operation, ViewSpec

from .levels import Levels, by_pillow, levels, numbers

GOLDEN = Path(__file__).parents[1] / "golden" / "pil_ops.safetensors"


@pytest.mark.parametrize("threshold", [0, 1, 100, 128, 255, 256])
def test_solarize_is_pillows_exactly(patches: Levels, threshold: int) -> None:
    expected = by_pillow(patches, lambda x, i: ImageOps.solarize(x, threshold))
    assert torch.equal(ours.solarize(levels(patches), threshold), expected)


def test_blur_is_pillows_but_for_its_rounding(patches: Levels) -> None:
    sigma = numbers(0.1, 2.0, len(patches))
    expected = by_pillow(patches, lambda x, i: x.filter(ImageFilter.GaussianBlur(float(sigma[i]))))
    off = (ours.blur(levels(patches), sigma) - expected).abs()
    assert off.max() <= 3.5  # seven roundings, of which each adds up to half a level
    assert off.mean() < 0.5


def test_blur_is_pillows_algorithm_rounded_as_pillow_rounds(patches: Levels) -> None:
    """With whole levels after every pass, as Pillow has them, the rest is one level."""
    sigma = numbers(0.1, 2.0, len(patches))
    expected = by_pillow(patches, lambda x, i: x.filter(ImageFilter.GaussianBlur(float(sigma[i]))))
    taps = ours.box_taps(sigma)
    reach = taps.shape[1] - 1
    x = levels(patches).numpy()
    for axis in (3, 3, 3, 2, 2, 2):
        z = np.pad(x, [(reach, reach) if k == axis else (0, 0) for k in range(4)], mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(z, 2 * reach + 1, axis)
        full = np.concatenate([taps[:, :0:-1], taps], 1)
        x = np.floor(np.einsum("nchwk,nk->nchw", windows, full) + 0.5)
    assert np.abs(x - expected.numpy()).max() <= 1


def test_box_taps_have_the_variance_of_the_gaussian() -> None:
    sigma = numbers(0.05, 6, 50)
    taps = ours.box_taps(sigma)
    k = np.arange(taps.shape[1])
    np.testing.assert_allclose(taps[:, 0] + 2 * taps[:, 1:].sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(3 * 2 * (taps * k**2).sum(1), sigma.astype(np.float64) ** 2, rtol=1e-9)


def test_gaussian_kernel_is_torchvisions_inside(photos: list[Levels]) -> None:
    """The kernel of SimCLR's code at 224 px, 23 wide; torchvision mirrors at the edges, so the inside is compared."""
    image = np.stack([photos[0][:224, :224], photos[1][:224, :224]])
    sigma = np.array([0.7, 2.0], np.float32)
    blurred = ours.blur(levels(image), sigma, "gaussian")
    for x, s, y in zip(levels(image), sigma, blurred, strict=True):
        expected = F2.gaussian_blur(x, [23, 23], [float(s)])
        torch.testing.assert_close(y[:, 11:-11, 11:-11], expected[:, 11:-11, 11:-11], atol=0.01, rtol=0)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("kernel", ["pillow", "gaussian"])
def test_blur_of_an_image_smaller_than_the_kernel(size: int, kernel: str) -> None:
    flat = torch.full((2, 3, size, size), 77.0)
    out = ours.blur(flat, np.array([0.3, 2.0], np.float32), kernel)  # type: ignore[arg-type]
    torch.testing.assert_close(out, torch.full_like(out, 77.0))


def test_draws_have_the_probabilities_and_ranges_of_the_view() -> None:
    view = ViewSpec(
        flip_p=0.3, jitter=(0.4, 1.5, 0.2, 0.1), jitter_p=0.8, grayscale_p=0.2, blur_p=0.1, blur_sigma=(0.5, 1.5),
        solarize_p=0.25,
    )  # fmt: skip
    n = 40_000
    draws = ours.draw(view, uniforms(0, 0, np.arange(n), 0, ours.SLOTS))
    for flags, p in (
        (draws.flip, 0.3), (draws.jitter, 0.8), (draws.grayscale, 0.2), (draws.blur, 0.1), (draws.solarize, 0.25),
    ):  # fmt: skip
        assert abs(flags.mean() - p) < 4 * np.sqrt(p * (1 - p) / n)
    expected = [(0.6, 1.4), (0.0, 2.5), (0.8, 1.2), (-0.1, 0.1)]
    for column, (low, high) in zip(draws.factors.T, expected, strict=True):
        assert low <= column.min() < low + 0.01 and high - 0.01 < column.max() <= high
    assert 0.5 <= draws.sigma.min() < 0.51 and 1.49 < draws.sigma.max() <= 1.5
    _, counts = np.unique(draws.order, axis=0, return_counts=True)
    assert len(counts) == 24 and counts.min() > n / 24 - 5 * np.sqrt(n / 24)


def test_never_and_always() -> None:
    u = uniforms(0, 0, np.arange(500), 0, ours.SLOTS)
    never = ours.draw(ViewSpec(flip_p=0, jitter_p=0, grayscale_p=0, blur_p=0, solarize_p=0), u)
    always = ours.draw(ViewSpec(flip_p=1, jitter_p=1, grayscale_p=1, blur_p=1, solarize_p=1), u)
    for flags in ("flip", "jitter", "grayscale", "blur", "solarize"):
        assert not getattr(never, flags).any() and getattr(always, flags).all()


def test_what_the_order_leaves_out_does_not_happen(patches: Levels) -> None:
    view = ViewSpec(flip_p=1, jitter_p=1, blur_p=1, solarize_p=1, grayscale_p=1, order=("solarize",))
    draws = ours.draw(view, uniforms(0, 0, np.arange(4), 0, ours.SLOTS))
    assert not draws.flip.any()
    assert torch.equal(ours.apply(levels(patches[:4]), view, draws), ours.solarize(levels(patches[:4]), 128))


def test_the_order_of_the_view_is_kept(patches: Levels) -> None:
    """MoCo v1 takes grey before jitter, which leaves it grey; the other way round solarize sees another image."""
    u = uniforms(0, 0, np.arange(len(patches)), 0, ours.SLOTS)
    gray_first: tuple[Operation, ...] = ("grayscale", "jitter", "flip")
    view = ViewSpec(jitter=(0.4, 0.4, 0.4, 0.4), jitter_p=1, grayscale_p=0.5, blur_p=0, order=gray_first)
    draws = ours.draw(view, u)
    out = ours.apply(levels(patches), view, draws)
    expected = levels(patches)
    expected[draws.grayscale] = colour.luma(expected[draws.grayscale]).expand(-1, 3, -1, -1)
    torch.testing.assert_close(out, colour.jitter(expected, draws.factors, draws.order))
    assert out[draws.grayscale].std(1).max() < 1e-3

    dark_last = ViewSpec(jitter_p=1, solarize_p=1, blur_p=0, grayscale_p=0, order=("jitter", "solarize"))
    dark_first = dark_last.model_copy(update={"order": ("solarize", "jitter")})
    a, b = (ours.apply(levels(patches), v, ours.draw(v, u)) for v in (dark_last, dark_first))
    jittered = colour.jitter(levels(patches), ours.draw(dark_last, u).factors, ours.draw(dark_last, u).order)
    torch.testing.assert_close(a, ours.solarize(jittered, 128))
    assert (a - b).abs().mean() > 5


def test_flip_commutes_with_everything_else(patches: Levels) -> None:
    view = ViewSpec(solarize_p=0.5, jitter=(0.8, 0.8, 0.8, 0.2))
    draws = ours.draw(view, uniforms(0, 0, np.arange(len(patches)), 0, ours.SLOTS))
    chosen = draws.flip
    before = ours.apply(ours.flip(levels(patches), chosen), view, draws)
    after = ours.flip(ours.apply(levels(patches), view, draws), chosen)
    # Sums in another order may carry a level over the threshold of solarize; nothing else may show.
    assert ((before - after).abs() > 0.01).float().mean() < 1e-4
    assert torch.equal(ours.flip(levels(patches), chosen)[chosen], levels(patches)[chosen].flip(-1))
    assert torch.equal(ours.flip(levels(patches), chosen)[~chosen], levels(patches)[~chosen])


def test_images_left_out_are_untouched(patches: Levels) -> None:
    view = ViewSpec(jitter_p=0.5, grayscale_p=0.2, blur_p=0.3, solarize_p=0.2)
    draws = ours.draw(view, uniforms(0, 0, np.arange(len(patches)), 0, ours.SLOTS))
    out = ours.apply(levels(patches), view, draws)
    nothing = ~(draws.jitter | draws.grayscale | draws.blur | draws.solarize)
    assert nothing.any() and not nothing.all()
    assert torch.equal(out[nothing], levels(patches)[nothing])
    assert ((out - levels(patches)).abs().amax((1, 2, 3)) > 1)[~nothing].all()


GOLDENS: list[tuple[str, float, Callable[[Tensor], Tensor]]] = [
    ("solarize128", 0, lambda x: ours.solarize(x, 128)),
    *((f"blur_radius{s}", 3.5, lambda x, s=s: ours.blur(x, numbers(s, s, 1))) for s in (0.1, 0.5, 1.0, 2.0)),
]


@pytest.mark.parametrize(("name", "within", "change"), GOLDENS, ids=[name for name, *_ in GOLDENS])
def test_golden(name: str, within: float, change: Callable[[Tensor], Tensor]) -> None:
    golden = load_file(GOLDEN)
    off = (change(levels(golden["img"][None])) - levels(golden[name][None])).abs()
    assert off.max() <= within
