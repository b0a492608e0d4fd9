"""SwAV against six iterations of the official training loop, with and without its queue; what is frozen and when.

Golden: ``train`` of facebookresearch/swav, main_swav.py, on a one-layer encoder, 2 + 3 crops.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sslctl.methods.swav as module
from sslctl.methods.base import Context, Views
from sslctl.methods.swav import SwAV, SwAVParams
from sslctl.schedule import Schedule, Step, constant
from sslctl.spec.schema import OptimSpec

from ..stubs import Flat

SMALL = SwAVParams(prototypes=10, hidden=4, out=6, queue=0, freeze_prototypes_epochs=2)
LARC = OptimSpec(name="larc", momentum=0.9, trust=0.001)


class Embeddings(Flat):
    """A backbone whose input is the embedding too: the authors' golden network."""

    dim = 12


class Watched(SwAV):
    """Keeps the scores of a step, so that a test can look at their gradient."""

    kept: Tensor

    def score(self, z: Tensor) -> Tensor:
        scores = super().score(z)
        if scores.requires_grad:
            scores.retain_grad()
            self.kept = scores
        return scores


def trace_method(case: dict[str, Tensor], queue: int, dtype: torch.dtype) -> Watched:
    method = Watched(SMALL.model_copy(update={"queue": queue, "queue_from_epoch": 0}), Embeddings(), Context(1000, 4))
    method.student.head = nn.Linear(12, 6)
    method.student.head.weight.data = case["init/module.proj.weight"].clone()
    method.student.head.bias.data = case["init/module.proj.bias"].clone()
    method.prototypes.weight.data = case["init/module.prototypes.weight"].clone()
    return method.to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("queue", [0, 8])
def test_training_is_the_authors(
    golden: Callable[[str], dict[str, Tensor]],
    trainer: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    queue: int,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    case = golden("swav_train_trace_queue" if queue else "swav_train_trace")
    case = {k: v.to(dtype) for k, v in case.items()}
    method = trace_method(case, queue, dtype)
    train = trainer(method, LARC, Schedule(base=4.0, end=0.4, shape="linear"), constant(0.001))
    assigned: list[tuple[Tensor, Tensor]] = []
    sinkhorn = module.sinkhorn

    def spy(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
        q = sinkhorn(scores, epsilon, iterations)
        assigned.append((scores.clone(), q.clone()))
        return q

    monkeypatch.setattr(module, "sinkhorn", spy)

    def same(value: Tensor | None, name: str, it: int) -> None:
        expected = case[f"it{it}/{name}"]
        assert value is not None
        atol = tolerance * float(expected.abs().max())
        torch.testing.assert_close(value.detach(), expected, rtol=tolerance, atol=atol, msg=lambda m: f"{name}: {m}")

    for it in range(6):
        crops = [case[f"it{it}/crop{i}"] for i in range(5)]
        assigned.clear()
        output = train.step(Views(crops[:2], crops[2:], torch.arange(4)), Step(it, 6, 1))
        same(output.loss, "loss", it)
        torch.testing.assert_close(output.embedding, case[f"it{it}/embedding"][:4], rtol=tolerance, atol=tolerance)
        same(method.kept.flatten(0, 1), "scores", it)
        same(method.kept.grad.flatten(0, 1) if method.kept.grad is not None else None, "grad_scores", it)
        for i, (scores, q) in enumerate(assigned):
            same(scores, f"assign{i}/sinkhorn_input", it)
            same(q[-4:], f"assign{i}/q_batch", it)
        assert len(assigned) == 2
        if queue:
            same(method.queue, "queue_after", it)
        same(method.student.head.weight, "param_after/module.proj.weight", it)
        same(method.student.head.bias, "param_after/module.proj.bias", it)
        same(method.prototypes.weight, "param_after/module.prototypes.weight", it)
    if queue:
        assert len(assigned[0][0]) == 12, "the queue was consulted"


def test_the_queue_begins_in_its_epoch_and_counts_once_full(
    net: Callable[[], Any], random_views: Callable[..., Views]
) -> None:
    params = SwAVParams(prototypes=5, hidden=8, out=4, queue=17, queue_from_epoch=1)
    method = SwAV(params, net(), Context(1000, 6))
    assert method.queue.shape == (2, 12, 4), "whole batches"
    filled = []
    for index in range(6):
        before = method.queue.clone()
        method(random_views((2, 16), seed=index), Step(index, 8, 2))
        filled.append(float(method.queue.any(-1).float().mean()))
        if index >= 2:
            assert torch.equal(method.queue[:, 6:], before[:, :6]), "what was newest moved back"
    assert filled == [0.0, 0.0, 0.5, 1.0, 1.0, 1.0]


def test_a_full_queue_changes_the_assignments(net: Callable[[], Any]) -> None:
    method = SwAV(SwAVParams(prototypes=5, hidden=8, out=4, queue=12, queue_from_epoch=0), net(), Context(1000, 6))
    z = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    with_queue, without = copy.deepcopy(method), copy.deepcopy(method)
    for each in (with_queue, without):
        each.queue.copy_(torch.nn.functional.normalize(torch.rand(2, 12, 4) + 1.0, dim=-1))
    assert not torch.allclose(with_queue.assign(0, z, Step(2, 8, 4)), without.assign(0, z, Step(1, 8, 4)))


@pytest.mark.parametrize(("images", "batch", "rows"), [(1000, 256, 768), (100000, 256, 3840), (10**7, 4096, 0)])
def test_the_queue_is_no_longer_than_the_set(net: Callable[[], Any], images: int, batch: int, rows: int) -> None:
    assert SwAV(SwAVParams(prototypes=5), net(), Context(images, batch, globals=3)).queue.shape == (3, rows, 128)


def test_prototypes_are_frozen_for_their_epochs_but_normalised(
    net: Callable[[], Any], random_views: Callable[..., Views], trainer: Callable[..., Any]
) -> None:
    params = SwAVParams(prototypes=5, hidden=8, out=4, freeze_prototypes_epochs=1.5)
    method = SwAV(params, net(), Context(1000, 6))
    train = trainer(method, LARC, constant(1.0), constant(1e-3))
    start = torch.nn.functional.normalize(method.prototypes.weight.detach(), dim=1)
    moved = []
    for index in range(5):
        train.step(random_views((2, 16), (2, 8), seed=index), Step(index, 8, 2))
        moved.append(not torch.allclose(method.prototypes.weight.detach(), start))
    assert moved == [False, False, False, True, True]


def test_everything_decays_and_adapts(net: Callable[[], Any]) -> None:
    method = SwAV(SwAVParams(prototypes=5), net(), Context(1000, 6))
    (group,) = method.groups()
    assert group.decay and group.adapt
    assert {name for name, _ in group.params} == {name for name, _ in method.named_parameters()}
    assert "student.head.0.bias" in {name for name, _ in group.params}
