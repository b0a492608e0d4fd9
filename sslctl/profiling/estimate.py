"""How large a run is before it begins: parameters, the memory of a step, the largest batch that fits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..backbones import Backbone
from ..engine.setup import Training
from ..methods.base import Views
from ..runtime import distributed
from ..runtime.device import free_memory
from ..schedule import Step

PROBE = 2  # images on which the graph is measured, and twice as many
GAPS = 1.4  # on a CPU a process takes so many times what its tensors hold (ResNet-50, ViT-Ti: benchmarks.md)
FILL = 0.85  # share of the free memory to count on; the rest is fragmentation, the loader, other processes


@dataclass(frozen=True)
class Size:
    """Parameter counts, and bytes on this process: ``fixed`` for weights, gradients and optimizer state; ``per_image``
    of a forward pass, for its views and what the backward pass keeps; ``free`` on the device, None where not known.

    A step of several ``passes`` (optim.accumulate) holds the ``views`` of all of them from the start.
    """

    parameters: int
    backbone_parameters: int
    fixed: int
    per_image: int
    images: int  # of this process in one forward pass
    free: int | None
    views: int = 0  # bytes of an image's
    passes: int = 1

    @property
    def memory(self) -> int:
        return self.fixed + self.images * self._for_an_image

    @property
    def fits(self) -> bool:
        return self.free is None or self.memory <= FILL * self.free

    @property
    def largest_batch(self) -> int | None:
        """Return the most images in one forward pass of this process; None where unknown."""
        if self.free is None:
            return None
        return max(0, int(FILL * self.free - self.fixed) // max(1, self._for_an_image))

    @property
    def accumulate(self) -> int | None:
        """Return the passes into which a step must be cut to fit (``optim.accumulate``); None if none suffice."""
        batch, free = self.images * self.passes, self.free
        if free is None:
            return self.passes
        left = FILL * free - self.fixed - batch * self.views
        return parts_that_fit(batch, lambda parts: batch // parts * (self.per_image - self.views) <= left)

    @property
    def _for_an_image(self) -> int:
        return self.per_image + (self.passes - 1) * self.views

    def __str__(self) -> str:
        text = f"about {self.memory / 2**30:.2f} GiB"
        if self.free is None:
            return text
        most = f"{self.largest_batch} images in one forward pass at most, here {self.images}"
        return f"{text} of {self.free / 2**30:.1f} GiB free; {most}"

    def as_dict(self) -> dict[str, int | None]:
        counts = {"parameters": self.parameters, "backbone_parameters": self.backbone_parameters}
        return counts | {"memory_bytes": self.memory, "free_bytes": self.free, "largest_batch": self.largest_batch}


def parts_that_fit(batch: int, fits: Callable[[int], bool]) -> int | None:
    """Return the fewest equal parts of ``batch``, of two images or more, that fit; None if none do."""
    return next((n for n in range(1, batch // 2 + 1) if batch % n == 0 and fits(n)), None)


def estimate(t: Training) -> Size:
    """Return the size of ``t``, measured on a copy of the method with a few images."""
    weights = sum(p.numel() * p.element_size() for p in [*t.method.parameters(), *t.method.buffers()])
    trained = [p for p in t.method.parameters() if p.requires_grad]
    states = 2 if t.spec.optim.name == "adamw" else 1
    passes = t.spec.optim.accumulate
    views = sum(3 * 4 * view.size**2 for view in t.augment.plan.all)
    few, more = _kept_by_graph(t, PROBE), _kept_by_graph(t, 2 * PROBE)  # what both keep are weights in t.dtype
    return Size(
        parameters=sum(p.numel() for p in t.method.parameters()),
        backbone_parameters=sum(p.numel() for p in t.method.encoder().parameters()),
        fixed=weights + sum(p.numel() * p.element_size() for p in trained) * (1 + states) + max(0, 2 * few - more),
        per_image=int((more - few) / PROBE * (GAPS if t.device.type == "cpu" else 1)) + views,
        images=t.spec.run.batch_size // (passes * distributed.world_size()),
        free=free_memory(t.device),
        views=views,
        passes=passes,
    )


def noise_views(t: Training, images: int) -> Views:
    """Return a batch of views of noise, as large as those of the run."""
    plan = t.augment.plan
    crops = [torch.randn(images, 3, view.size, view.size, device=t.device) for view in plan.all]
    index = torch.arange(images, device=t.device)
    n = len(plan.globals)
    return Views(crops[:n], crops[n:], index, torch.zeros_like(index))


def _kept_by_graph(t: Training, images: int) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, without weights and views."""
    method = copy.deepcopy(t.method).train()
    with torch.random.fork_rng():
        views = noise_views(t, images)
    storages: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return x

    own = {x.untyped_storage().data_ptr() for x in [*method.parameters(), *views.all]}
    for backbone in [m for m in method.modules() if isinstance(m, Backbone) and m.grad_checkpointing]:
        backbone.watch_blocks(pack)  # their inputs are kept without being asked about
    with (
        torch.random.fork_rng(),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x),
        torch.autocast(t.device.type, t.dtype, enabled=t.dtype != torch.float32),
    ):
        method(views, Step(0, t.total, t.per_epoch))
    return sum(size for pointer, size in storages.items() if pointer not in own)
