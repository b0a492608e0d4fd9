"""All views of a batch: the same whatever the path, the batch, the pieces; what torchvision makes of the same draws."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F2

from sslctl.data.loader import Batch
from sslctl.spec.schema import ViewsSpec
from sslctl.views import geometric, photometric
from sslctl.views.augment import Augment, Views
from sslctl.views.keyed import uniforms
from sslctl.views.recipe import IMAGENET_MEAN, IMAGENET_STD, ViewPlan, ViewRecipe, ViewSpec, plan_views

Images = NDArray[np.uint8]
CPU = torch.device("cpu")
PLAIN = ViewSpec(flip_p=0, jitter_p=0, grayscale_p=0, blur_p=0)
FULL = ViewSpec(size=40, interpolation="bicubic", solarize_p=0.2)
OTHER = FULL.model_copy(update={"blur_p": 0.1, "blur_kernel": "gaussian"})
SMALL = FULL.model_copy(update={"size": 24, "scale": (0.05, 0.4), "jitter": (0.8, 0.8, 0.8, 0.2)})
PLAN = ViewPlan((FULL, OTHER), (SMALL, SMALL, SMALL), IMAGENET_MEAN, IMAGENET_STD)


def batch_of(images: Images, index: NDArray[np.int64], epoch: NDArray[np.int64], augment: Augment | None) -> Batch:
    """With crops, as workers make them with ``augment``; or with the images themselves."""
    keys = torch.from_numpy(index), torch.from_numpy(epoch)
    labels = keys[0] % 5
    if augment is None:
        return Batch(*keys, [], torch.from_numpy(images).permute(0, 3, 1, 2), labels, [])
    crops = [augment.geometric(x, int(e), int(i)) for x, e, i in zip(images, epoch, index, strict=True)]
    return Batch(*keys, [torch.stack(view) for view in zip(*crops, strict=True)], None, labels, [])


def views(images: Images, augment: Augment, in_memory: bool = True, index: list[int] | None = None) -> Views:
    positions = np.arange(len(images)) if index is None else np.array(index)
    epoch = np.full(len(images), 2)
    return augment(batch_of(images, positions, epoch, None if in_memory else augment), CPU)


def levels(x: Tensor) -> Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (x * std + mean) * 255


def test_shapes_and_what_goes_along(patches: Images) -> None:
    out = views(patches[:6], Augment(PLAN, 0), index=[5, 9, 2, 7, 7, 0])
    assert [tuple(x.shape) for x in out.globals] == [(6, 3, 40, 40)] * 2
    assert [tuple(x.shape) for x in out.locals] == [(6, 3, 24, 24)] * 3
    assert all(x.dtype == torch.float32 and torch.isfinite(x).all() for x in out.all)
    assert out.index.tolist() == [5, 9, 2, 7, 7, 0]
    assert out.labels is not None and out.labels.tolist() == [0, 4, 2, 2, 2, 0]


@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [24, 64, 96])
def test_both_paths_give_one_picture(patches: Images, how: str, size: int) -> None:
    """Crops by workers and by whole batches in memory, before anything photometric, flips included."""
    view = PLAIN.model_copy(update={"size": size, "interpolation": how, "flip_p": 0.5})
    augment = Augment(ViewPlan((view, view), (), IMAGENET_MEAN, IMAGENET_STD), 3)
    stored, cropped = (views(patches, augment, in_memory) for in_memory in (True, False))
    for a, b in zip(stored.all, cropped.all, strict=True):
        off = (levels(a) - levels(b)).abs()
        assert off.max() < 2.01 and (off > 1.01).float().mean() < 2e-5


def test_both_paths_give_one_picture_with_everything_on(patches: Images) -> None:
    """A level more or less before jitter is a few after it, and solarize may cut between: the mean counts."""
    augment = Augment(PLAN, 3)
    for a, b in zip(views(patches, augment).all, views(patches, augment, in_memory=False).all, strict=True):
        off = (levels(a) - levels(b)).abs()
        assert off.mean() < 0.02 and (off > 6).float().mean() < 1e-3


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_view_does_not_depend_on_its_batch(patches: Images, in_memory: bool) -> None:
    augment = Augment(PLAN, 1)
    whole = views(patches[:12], augment, in_memory).all
    some = [7, 2, 11]
    part = views(patches[some], augment, in_memory, index=some).all
    for a, b in zip(whole, part, strict=True):
        torch.testing.assert_close(a[some], b, atol=1e-4, rtol=0)
    again = views(patches[:12], pickle.loads(pickle.dumps(augment)), in_memory).all
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


def test_pieces_change_nothing(patches: Images) -> None:
    """From one image at a time to all at once."""
    augment = Augment(PLAN, 1)
    whole = {in_memory: views(patches, augment, in_memory).all for in_memory in (True, False)}
    for budget in (1, 12 * 64 * 64 * 5, 1 << 30):
        augment = Augment(PLAN, 1, piece=budget)
        for in_memory, expected in whole.items():
            for a, b in zip(views(patches, augment, in_memory).all, expected, strict=True):
                torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def test_views_epochs_seeds_and_images_get_their_own_draws(patches: Images) -> None:
    same = np.repeat(patches[:1], 8, 0)  # one picture under eight numbers
    view = FULL.model_copy(update={"size": 32})
    plan = ViewPlan((view, view), (view,), IMAGENET_MEAN, IMAGENET_STD)
    batch = batch_of(same, np.arange(8), np.array([0, 0, 0, 0, 1, 1, 1, 1]), None)
    out = torch.stack([torch.stack(Augment(plan, seed)(batch, CPU).all) for seed in (0, 1)])  # (2, 3, 8, …)
    flat = out.flatten(0, 2).flatten(1)
    distance = torch.cdist(flat, flat) + torch.eye(len(flat)) * 1e9
    assert distance.min() > 1
    twice = batch_of(same[:2], np.array([3, 3]), np.array([0, 1]), None)
    first, second = Augment(plan, 0)(twice, CPU).globals[0]
    assert (first - second).abs().mean() > 0.01


def test_one_view_step_by_step_with_torchvision(patches: Images) -> None:
    """The same draws through torchvision's functions, one image at a time."""
    view = FULL.model_copy(update={"blur_kernel": "gaussian", "size": 48})  # a kernel of 5 px
    augment = Augment(ViewPlan((view,), (), IMAGENET_MEAN, IMAGENET_STD), 4)
    out = views(patches, augment).globals[0]
    u = uniforms(4, 2, np.arange(len(patches)), 0, geometric.SLOTS + photometric.SLOTS)
    boxes = geometric.crop_boxes(u[:, : geometric.SLOTS], 64, 64, view.scale, view.ratio)
    draws = photometric.draw(view, u[:, geometric.SLOTS :])
    for i, image in enumerate(patches):
        x = F2.resized_crop(
            torch.from_numpy(image).permute(2, 0, 1), *boxes[i].tolist(), [48, 48],
            interpolation=F2.InterpolationMode.BICUBIC, antialias=True,
        ).float() / 255  # fmt: skip
        if draws.flip[i]:
            x = F2.horizontal_flip(x)
        if draws.jitter[i]:
            change = [F2.adjust_brightness, F2.adjust_contrast, F2.adjust_saturation, F2.adjust_hue]
            for k in draws.order[i].tolist():
                x = change[k](x, float(draws.factors[i, k]))
        if draws.grayscale[i]:
            x = F2.rgb_to_grayscale(x, 3)
        if draws.blur[i]:
            x = F2.gaussian_blur(x, [5, 5], [float(draws.sigma[i])])
        if draws.solarize[i]:
            x = torch.where(x * 255 >= 127.5, 1 - x, x)
        x = F2.normalize(x, list(IMAGENET_MEAN), list(IMAGENET_STD))
        off = (levels(out[i]) - levels(x)).abs()[:, 2:-2, 2:-2]  # edges are repeated, torchvision mirrors them
        assert off.mean() < 0.2 and (off > 4).float().mean() < 5e-3, f"image {i}"


def test_nothing_but_normalisation(patches: Images) -> None:
    view = PLAIN.model_copy(update={"size": 64, "scale": (1.0, 1.0), "ratio": (1.0, 1.0)})
    plan = ViewPlan((view,), (), (0.5, 0.25, 0.125), (0.5, 0.25, 2.0))
    out = views(patches[:4], Augment(plan, 0)).globals[0]
    pixels = torch.from_numpy(patches[:4]).permute(0, 3, 1, 2) / 255
    for c in range(3):
        torch.testing.assert_close(out[:, c], (pixels[:, c] - plan.mean[c]) / plan.std[c])


def test_autocast_around_it_changes_nothing_and_no_gradient_is_kept(patches: Images) -> None:
    augment = Augment(PLAN, 1)
    plain = views(patches, augment).all
    with torch.autocast("cpu", torch.bfloat16):
        cast = views(patches, augment).all
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))
    assert not any(x.requires_grad or x.is_inference() for x in plain)


def test_images_of_any_layout_in_memory(patches: Images) -> None:
    augment = Augment(PLAN, 1)
    batch = batch_of(patches, np.arange(len(patches)), np.zeros(len(patches), np.int64), None)
    assert batch.images is not None and not batch.images.is_contiguous()
    planar = replace(batch, images=batch.images.contiguous())
    assert all(torch.equal(a, b) for a, b in zip(augment(batch, CPU).all, augment(planar, CPU).all, strict=True))


def test_photographs_through_the_whole_grammar(photos: list[Images]) -> None:
    recipe = ViewRecipe("2x96", (FULL, OTHER), SMALL)
    augment = Augment(plan_views(recipe, ViewsSpec(multi_crop="2x64@0.4-1+3x32@0.05-0.4")), 0)
    keys = torch.arange(len(photos)), torch.zeros(len(photos), dtype=torch.long)
    crops = [augment.geometric(photo, 0, i) for i, photo in enumerate(photos)]
    out = augment(Batch(*keys, [torch.stack(v) for v in zip(*crops, strict=True)], None, None, []), CPU)
    assert [x.shape[-1] for x in out.all] == [64, 64, 32, 32, 32] and out.labels is None
    for view in out.all:
        pixels = levels(view)
        assert pixels.min() > -0.01 and pixels.max() < 255.01 and (pixels.flatten(1).std(1) > 2).all()
