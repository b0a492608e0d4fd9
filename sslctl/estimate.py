"""How large a run is before it begins: parameters, and the memory of one step by what its graph keeps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .engine import Training
from .method import Views
from .schedule import Step

PROBE = 4  # images on which the graph is measured


def estimate(t: Training) -> dict[str, Any]:
    """Parameter counts and the bytes of a step: weights, gradients, optimizer state, what the backward pass keeps."""
    weights = sum(p.numel() * p.element_size() for p in [*t.method.parameters(), *t.method.buffers()])
    trained = [p for p in t.method.parameters() if p.requires_grad]
    states = 2 if t.spec.optim.name == "adamw" else 1
    fixed = weights + sum(p.numel() * p.element_size() for p in trained) * (1 + states)
    return {
        "parameters": sum(p.numel() for p in t.method.parameters()),
        "backbone_parameters": sum(p.numel() for p in t.method.encoder().parameters()),
        "memory_bytes": fixed + _kept_by_graph(t),
    }


def _kept_by_graph(t: Training) -> int:
    """Bytes that a forward pass keeps for the backward pass, measured on a few images and scaled to the batch."""
    seen: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return x

    plan = t.augment.plan
    blank = [torch.zeros(PROBE, 3, view.size, view.size, device=t.device) for view in plan.all]
    n = len(plan.globals)
    index = torch.arange(PROBE, device=t.device)
    views = Views(blank[:n], blank[n:], index, torch.zeros_like(index))
    own = {p.untyped_storage().data_ptr() for p in t.method.parameters()}
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x),
        torch.autocast(t.device.type, t.dtype, enabled=t.dtype != torch.float32),
    ):
        t.method(views, Step(0, t.total, t.per_epoch))
    kept = sum(size for pointer, size in seen.items() if pointer not in own)
    return kept * t.spec.run.batch_size // (PROBE * t.spec.optim.accumulate)
