"""Features of several random views of each image: what LiDAR and alignment are computed from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...backbones import pooled
from ...data.decode import BadImage
from ...data.loader import Batch
from ...data.source import Source
from ...methods import FOREIGN_VIEWS, METHODS, load_method
from ...runs.encoder import LoadedEncoder
from ...spec.schema import ViewsSpec
from ...views.augment import Augment
from ...views.recipe import ViewPlan, plan_views
from ..features.stream import frozen


def view_plan(encoder: LoadedEncoder) -> ViewPlan:
    """Return the global views that the run trained on; SimCLR's, at the encoder's size, for other people's weights."""
    name = encoder.spec.method.name
    if encoder.meta.imported is not None or name not in METHODS:
        image = encoder.meta.image
        recipe = load_method(FOREIGN_VIEWS).views._replace(mean=image.mean, std=image.std)
        plan = plan_views(recipe, ViewsSpec(multi_crop=f"2x{image.size}"))
    else:
        plan = plan_views(load_method(name).views, encoder.spec.views)
    return plan._replace(locals=())


def extract_views(
    net: nn.Module,
    source: Source,
    plan: ViewPlan,
    count: int,
    *,
    seed: int = 0,
    batch_size: int = 256,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Return features of ``count`` views of every readable image of ``source``: float32 (n, count, d), on the CPU.

    The views of an image are those that training with ``seed`` would show it in epochs 0, 1, …: there is no other
    randomness, and neither batches nor devices change them. ``net`` stays as it is, as ``stream`` says.
    """
    device = device or torch.device("cpu")
    net, augment = net.to(device), Augment(plan, seed)
    epochs = range(-(-count // len(plan.globals)))
    step = max(1, batch_size // len(plan.globals))
    found: list[Tensor] = []
    with frozen(net), torch.no_grad():
        for start in range(0, len(source), step):
            index, images = _read(source, range(start, min(start + step, len(source))))
            views: list[Tensor] = []  # (b, d) each
            for epoch in epochs if index else ():
                made = augment(_batch(source, augment, index, images, epoch), device).globals
                with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                    h = pooled(net(torch.cat(made))).float()  # (V b, d)
                views += h.view(len(made), len(index), -1).cpu().unbind()
            if index:
                found.append(torch.stack(views[:count], 1))
            progress(min(start + step, len(source)), len(source))
    return torch.cat(found)


def _read(source: Source, rows: range) -> tuple[list[int], list[NDArray[Any]]]:
    index, images = [], []
    for i in rows:
        try:
            images.append(source.read(i))
            index.append(i)
        except BadImage:  # the pass over the plain images has listed it
            continue
    return index, images


def _batch(source: Source, augment: Augment, index: list[int], images: list[NDArray[Any]], epoch: int) -> Batch:
    keys = torch.tensor(index), torch.full((len(index),), epoch)
    if source.array is not None:  # crops of a whole batch, on the device, as in training
        return Batch(*keys, images=torch.from_numpy(source.array[index]).permute(0, 3, 1, 2))
    crops = [augment.geometric(image, epoch, i) for image, i in zip(images, index, strict=True)]
    return Batch(*keys, [torch.stack(view) for view in zip(*crops, strict=True)])
