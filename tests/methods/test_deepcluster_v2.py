"""DeepCluster-v2 against the authors' k-means; its memory, its epochs, its loss.

Golden: ``cluster_memory`` of facebookresearch/swav, main_deepclusterv2.py, in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslctl.errors import SpecError
from sslctl.layers.clusters import kmeans
from sslctl.layers.precision import unit
from sslctl.methods.base import Context, Views
from sslctl.methods.deepcluster_v2 import UNKNOWN, DeepClusterV2, DeepClusterV2Params
from sslctl.schedule import Step, constant
from sslctl.spec.schema import OptimSpec


@pytest.mark.parametrize("chunk", [4096, 7])
def test_kmeans_is_the_authors(
    golden: Callable[[str], dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr("sslctl.layers.clusters.CHUNK", chunk)
    case = golden("deepclusterv2_kmeans")
    for head, count in enumerate((4, 6)):
        x = case["memory_embeddings"][head]
        centroids, nearest = kmeans(x, x[case[f"init_perm{head}"][:count]], 10)
        torch.testing.assert_close(centroids, case[f"centroids{head}"], rtol=1e-5, atol=1e-6)
        assert torch.equal(nearest, case["assignments"][head][case["memory_index"]])


def test_a_cluster_that_lost_its_rows_keeps_its_centroid() -> None:
    x = unit(torch.tensor([[1.0, 0.1], [1.0, -0.1], [0.9, 0.2]]))
    start = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    centroids, nearest = kmeans(x, start, 3)
    assert torch.equal(centroids[1], start[1]) and nearest.tolist() == [0, 0, 0]
    torch.testing.assert_close(centroids[0], unit(x.mean(0)))


def make(net: Any, **params: Any) -> DeepClusterV2:
    torch.manual_seed(0)
    return DeepClusterV2(
        DeepClusterV2Params(hidden=8, out=5, **{"prototypes": (3, 2), **params}), net(), Context(12, 6)
    )


def batch(random_views: Callable[..., Views], index: int) -> Views:
    views = random_views((2, 16), (2, 8), seed=index)
    return replace(views, index=torch.arange(6) + 6 * (index % 2))


def test_the_first_epoch_fills_the_memory_and_moves_nothing(
    net: Callable[[], Any], random_views: Callable[..., Views], trainer: Callable[..., Any]
) -> None:
    method = make(net)
    before = {key: p.clone() for key, p in method.named_parameters()}
    train = trainer(method, OptimSpec(name="adamw"), constant(0.1), constant(0.1))
    for index in range(2):
        assert train.step(batch(random_views, index), Step(index, 6, 2)).loss == 0
    assert all(torch.equal(p, before[key]) for key, p in method.named_parameters())
    torch.testing.assert_close(method.memory.norm(dim=-1), torch.ones(2, 12))
    assert (method.assignments == UNKNOWN).all()
    output = train.step(batch(random_views, 2), Step(2, 6, 2))
    assert output.loss > 0 and output.logs["known"] == 1
    assert any(not torch.equal(p, before[key]) for key, p in method.named_parameters())


def test_the_loss_is_cross_entropy_with_the_clusters_of_the_epochs_start(
    net: Callable[[], Any], random_views: Callable[..., Views]
) -> None:
    method = make(net).eval()
    for index in range(2):
        method(batch(random_views, index), Step(index, 6, 2))
    memory = method.memory.clone()
    views = batch(random_views, 2)
    loss = method(views, Step(2, 6, 2)).loss
    z = unit(torch.stack([method.student(x) for x in views.all]))
    each = []
    for head in range(2):
        centroids, nearest = method.get_buffer(f"centroids{head}"), method.assignments[head]
        assert torch.equal(nearest, (memory[head] @ centroids.T).argmax(1)), "heads take the memories in turn"
        each += [F.cross_entropy(x @ centroids.T / 0.1, nearest[views.index]) for x in z]
    torch.testing.assert_close(loss, torch.stack(each).mean())
    kept = method.assignments.clone()
    method(batch(random_views, 3), Step(3, 6, 2))
    assert torch.equal(method.assignments, kept), "within an epoch clusters stay"
    method(batch(random_views, 4), Step(4, 6, 2))
    assert not torch.equal(method.memory[:, :6], memory[:, :6])


def test_parts_of_a_batch_see_the_same_clusters(net: Callable[[], Any], random_views: Callable[..., Views]) -> None:
    method = make(net)
    for index in range(2):
        method(batch(random_views, index), Step(index, 6, 2))
    method(batch(random_views, 2), Step(2, 6, 2))
    centroids = method.get_buffer("centroids0").clone()
    method.memory.normal_()
    method(batch(random_views, 2), Step(2, 6, 2))
    assert torch.equal(method.get_buffer("centroids0"), centroids)


def test_images_not_seen_yet_have_no_cluster(net: Callable[[], Any], random_views: Callable[..., Views]) -> None:
    """An epoch leaves out what does not fill a batch: those images wait."""
    torch.manual_seed(0)
    method = DeepClusterV2(DeepClusterV2Params(hidden=8, out=5, prototypes=(3,)), net(), Context(15, 6))
    for index in range(2):
        method(batch(random_views, index), Step(index, 6, 2))
    views = replace(batch(random_views, 2), index=torch.tensor([0, 1, 2, 12, 13, 14]))
    output = method(views, Step(2, 6, 2))
    assert output.logs["known"] == 0.5 and torch.isfinite(output.loss)
    assert (method.assignments[0, 12:] == UNKNOWN).all() and (method.assignments[0, :12] >= 0).all()


def test_more_clusters_than_images_are_refused(net: Callable[[], Any]) -> None:
    with pytest.raises(SpecError, match="more clusters than the 12 images"):
        make(net, prototypes=(3, 13))
