"""Sinkhorn, k-means, and the logs of targets, against the code of SwAV and loops."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from sslctl.layers.clusters import CHUNK, kmeans, sinkhorn, target_logs
from sslctl.layers.precision import unit

from .drawing import randn

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize(
    ("dtype", "suffix", "tolerance"), [(torch.float64, "", 1e-9), (torch.float32, "_float32", 1e-4)]
)
@pytest.mark.parametrize("case", ["eps0.05_it3", "eps0.05_it10", "eps0.03_it3", "eps0.05_it0"])
def test_sinkhorn_is_swavs(case: str, dtype: torch.dtype, suffix: str, tolerance: float) -> None:
    """Golden: ``distributed_sinkhorn`` of facebookresearch/swav, main_swav.py."""
    golden = load_file(GOLDEN / "swav_sinkhorn.safetensors")
    epsilon, _, iterations = case.removeprefix("eps").partition("_it")
    q = sinkhorn(golden["scores"].to(dtype), float(epsilon), int(iterations))
    torch.testing.assert_close(q, golden[f"{case}.q{suffix}"], rtol=tolerance, atol=0)


def test_sinkhorn_uses_prototypes_equally_and_keeps_its_range() -> None:
    scores = unit(randn(40, 8)) @ unit(randn(6, 8, seed=1)).T
    q = sinkhorn(scores, 0.05, 100)
    torch.testing.assert_close(q.sum(1), torch.ones(40, dtype=torch.float64))
    torch.testing.assert_close(q.sum(0), torch.full((6,), 40 / 6, dtype=torch.float64))
    extreme = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]], dtype=torch.float16)
    assert torch.isfinite(sinkhorn(extreme, 0.03, 3)).all()


def test_target_logs_tell_both_collapses_from_learning() -> None:
    uniform = torch.full((2, 8, 4), 0.25)
    one_hot = F.one_hot(torch.zeros(2, 8, dtype=torch.long), 4).float()
    spread = F.one_hot(torch.arange(16).reshape(2, 8) % 4, 4).float()
    logs = [{k: round(float(v), 6) for k, v in target_logs(q).items()} for q in (uniform, one_hot, spread)]
    assert [x["target_entropy"] for x in logs] == [1.0, 0.0, 0.0]
    assert [x["target_information"] for x in logs] == [0.0, 0.0, round(math.log(4), 6)]


def test_kmeans_is_lloyds_loop_on_the_sphere() -> None:
    x, start = unit(randn(200, 3)), unit(randn(4, 3, seed=1))
    centroids, nearest = kmeans(x, start, 5)
    by_hand = start.clone()
    for _ in range(5):
        member = torch.stack([by_hand @ row for row in x]).argmax(1)
        for k in range(4):
            mean = x[member == k].mean(0)
            by_hand[k] = mean / mean.norm()
    torch.testing.assert_close(centroids, by_hand, rtol=1e-10, atol=1e-12)
    assert nearest.tolist() == (x @ by_hand.T).argmax(1).tolist()


def test_kmeans_keeps_the_centroid_of_an_empty_cluster() -> None:
    x = unit(torch.tensor([[1.0, 0.1], [1.0, -0.1]]))
    start = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    centroids, nearest = kmeans(x, start, 3)
    torch.testing.assert_close(centroids, start)
    assert nearest.tolist() == [0, 0]


def test_kmeans_of_many_rows_goes_in_chunks_to_the_same_end() -> None:
    x, start = unit(randn(2 * CHUNK + 5, 2)), unit(randn(3, 2, seed=1))
    centroids, nearest = kmeans(x, start, 1)
    member = (x @ start.T).argmax(1)
    means = torch.stack([x[member == k].mean(0) for k in range(3)])
    torch.testing.assert_close(centroids, unit(means), rtol=1e-9, atol=1e-12)
    assert len(nearest) == len(x)
