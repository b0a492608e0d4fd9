"""The views of a batch: crops per image in the workers, the rest here, in whole batches on the training device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.loader import Batch
from ..runtime.device import send
from . import geometric, photometric
from .colour import on_device
from .keyed import uniforms
from .recipe import ViewPlan, ViewSpec

# Bytes of float32 views worked on at once. The cache of a CPU core has to hold them and a few intermediates (2 MiB
# measured best of 1, 2, 4 and 8); on an accelerator they bound the memory that augmentation takes.
CPU_PIECE, ACCELERATOR_PIECE = 2 << 20, 256 << 20


@dataclass(frozen=True)
class Views:
    """The views of a batch: large ``globals`` and small ``locals``, (B, C, H, W) each."""

    globals: list[Tensor]
    locals: list[Tensor]
    index: Tensor  # (B,) of the images in the dataset
    labels: Tensor | None = None  # (B,)

    @property
    def all(self) -> list[Tensor]:
        return self.globals + self.locals

    def chunk(self, parts: int) -> Iterator[Views]:
        """Yield the batch in ``parts`` of equally many images."""
        if parts == 1:
            yield self
            return
        labels = repeat(None) if self.labels is None else self.labels.chunk(parts)
        views, n = [view.chunk(parts) for view in self.all], len(self.globals)
        for part, index, own in zip(zip(*views, strict=True), self.index.chunk(parts), labels, strict=False):
            yield Views(list(part[:n]), list(part[n:]), index, own)


class Augment:
    """The views of ``plan``; every draw is a function of (seed, epoch, index in the set, view, slot).

    So neither the batch an image is in, nor workers, nor the device change its views, and there is no state to save.
    ``piece`` is how many bytes of float32 views are worked on at once; None: what suits the device.
    """

    def __init__(self, plan: ViewPlan, seed: int, piece: int | None = None) -> None:
        self.plan = plan
        self.seed = seed
        self.piece = piece
        self._scale = np.array([view.scale for view in plan.all])
        self._ratio = np.array([view.ratio for view in plan.all])
        self._alike: dict[ViewSpec, list[int]] = {}  # views of one description go through the operations together
        for position, view in enumerate(plan.all):
            self._alike.setdefault(view, []).append(position)

    def geometric(self, image: NDArray[np.uint8], epoch: int, index: int) -> list[Tensor]:
        """Crop one decoded ``image`` (H, W, 3) into a uint8 (3, S, S) for every view."""
        views = self.plan.all
        u = uniforms(self.seed, epoch, index, np.arange(len(views)), geometric.SLOTS)
        height, width = image.shape[:2]
        boxes = geometric.crop_boxes(u, height, width, self._scale, self._ratio)
        return [
            geometric.crop(image, box, view.size, view.interpolation) for view, box in zip(views, boxes, strict=True)
        ]

    def __call__(self, batch: Batch, device: torch.device) -> Views:
        """Return the views of ``batch`` on ``device``: float32 (B, 3, S, S), normalised."""
        done: list[Tensor] = [torch.empty(0)] * len(self.plan.all)
        images = None if batch.images is None else send(batch.images, device).contiguous()
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            for view, positions in self._alike.items():
                for position, x in zip(positions, self._make(view, positions, batch, images, device), strict=True):
                    done[position] = x
        n = len(self.plan.globals)
        labels = None if batch.labels is None else send(batch.labels, device)
        return Views(done[:n], done[n:], send(batch.index, device), labels)

    def _make(
        self, view: ViewSpec, positions: list[int], batch: Batch, images: Tensor | None, device: torch.device
    ) -> list[Tensor]:
        """Make the views at ``positions``, all of them ``view``."""
        n = len(batch.index)
        keys = (self.seed, batch.epoch.numpy(), batch.index.numpy(), np.array(positions)[:, None])
        u = uniforms(*keys, geometric.SLOTS + photometric.SLOTS).reshape(len(positions) * n, -1)
        draws = photometric.draw(view, u[:, geometric.SLOTS :])
        rows = photometric.batching_order(draws) if view.colour == "exact" else np.arange(len(u))
        draws = draws.take(rows)

        pixels: Callable[[slice], Tensor]
        if images is None:
            crops = torch.cat([send(batch.crops[p], device) for p in positions])
            largest = view.size**2

            def pixels(piece: slice) -> Tensor:
                x = crops.index_select(0, on_device(rows[piece], device))
                return photometric.flip(x, draws.flip[piece]).float()
        else:
            whole = images
            height, width = whole.shape[2:]
            boxes = geometric.crop_boxes(u[rows, : geometric.SLOTS], height, width, view.scale, view.ratio)
            largest = max(view.size, height) * max(view.size, width)

            def pixels(piece: slice) -> Tensor:
                x = whole.index_select(0, on_device(rows[piece] % n, device))
                box, flip = on_device(boxes[piece], device), on_device(draws.flip[piece], device)
                return geometric.crop_batch(x, box, flip, view.size, view.interpolation)

        mean, std = (on_device(np.array(x, np.float32) * 255, device) for x in (self.plan.mean, self.plan.std))
        out = torch.empty(len(positions) * n, 3, view.size, view.size, device=device)
        for piece in self._pieces(len(out), 12 * largest, device):
            x = photometric.apply(pixels(piece), view, draws.take(piece))
            x = x.sub_(mean[:, None, None]).div_(std[:, None, None])
            if view.colour == "exact":
                out.index_copy_(0, on_device(rows[piece], device), x)
            else:
                out[piece] = x
        return [out[i : i + n] for i in range(0, len(out), n)]

    def _pieces(self, n: int, item_bytes: int, device: torch.device) -> Iterator[slice]:
        suited = CPU_PIECE * torch.get_num_threads() if device.type == "cpu" else ACCELERATOR_PIECE
        step = max(1, (self.piece or suited) // item_bytes)
        for start in range(0, n, step):
            yield slice(start, min(n, start + step))
