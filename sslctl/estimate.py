"""How large a run is before it begins: parameters, the memory of a step, the largest batch that fits."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from . import distributed
from .backbones import Backbone
from .machine import free_memory
from .method import Views
from .schedule import Step
from .training import Training

PROBE = 4  # images on which the graph is measured
FILL = 0.85  # share of the free memory to count on; the rest is fragmentation, the loader, other processes


@dataclass(frozen=True)
class Size:
    """Parameter counts, and bytes on this process: ``fixed`` for weights, gradients and optimizer state; ``per_image``
    for what the backward pass keeps; ``free`` on the device, None where that is not known."""

    parameters: int
    backbone_parameters: int
    fixed: int
    per_image: int
    images: int  # of this process in one forward pass
    free: int | None

    @property
    def memory(self) -> int:
        return self.fixed + self.per_image * self.images

    @property
    def fits(self) -> bool:
        return self.free is None or self.memory <= self.free

    @property
    def largest_batch(self) -> int | None:
        """Most images in one forward pass of this process, 0 where not one fits; None where that is not known."""
        return None if self.free is None else max(0, int(FILL * self.free - self.fixed) // max(1, self.per_image))

    def __str__(self) -> str:
        said = f"about {self.memory / 2**30:.2f} GiB"
        if self.free is None:
            return said
        most = f"{self.largest_batch} images in one forward pass at most, here {self.images}"
        return f"{said} of {self.free / 2**30:.1f} GiB free; {most}"

    def as_dict(self) -> dict[str, int | None]:
        counts = {"parameters": self.parameters, "backbone_parameters": self.backbone_parameters}
        return counts | {"memory_bytes": self.memory, "free_bytes": self.free, "largest_batch": self.largest_batch}


def estimate(t: Training) -> Size:
    """The size of ``t``, measured on a copy of the method with a few images; the run's own state stays as it is."""
    weights = sum(p.numel() * p.element_size() for p in [*t.method.parameters(), *t.method.buffers()])
    trained = [p for p in t.method.parameters() if p.requires_grad]
    states = 2 if t.spec.optim.name == "adamw" else 1
    return Size(
        parameters=sum(p.numel() for p in t.method.parameters()),
        backbone_parameters=sum(p.numel() for p in t.method.encoder().parameters()),
        fixed=weights + sum(p.numel() * p.element_size() for p in trained) * (1 + states),
        per_image=_kept_by_graph(t) // PROBE,
        images=t.spec.run.batch_size // (t.spec.optim.accumulate * distributed.world_size()),
        free=free_memory(t.device),
    )


def noise_views(t: Training, images: int) -> Views:
    """A batch of views of noise, as large as those of the run."""
    plan = t.augment.plan
    crops = [torch.randn(images, 3, view.size, view.size, device=t.device) for view in plan.all]
    index = torch.arange(images, device=t.device)
    n = len(plan.globals)
    return Views(crops[:n], crops[n:], index, torch.zeros_like(index))


def _kept_by_graph(t: Training) -> int:
    """Bytes that a forward pass of PROBE images keeps for the backward pass."""
    method = copy.deepcopy(t.method).train()
    seen: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return x

    own = {p.untyped_storage().data_ptr() for p in method.parameters()}
    for backbone in [m for m in method.modules() if isinstance(m, Backbone) and m.grad_checkpointing]:
        for block in backbone.net.blocks:  # whose inputs are kept without being asked about
            block.register_forward_pre_hook(lambda _, given: pack(given[0]) is None or None)
    with (
        torch.random.fork_rng(),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x),
        torch.autocast(t.device.type, t.dtype, enabled=t.dtype != torch.float32),
    ):
        method(noise_views(t, PROBE), Step(0, t.total, t.per_epoch))
    return sum(size for pointer, size in seen.items() if pointer not in own)
