"""Measures without labels: against numpy written from the papers' formulas, and on features whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from sslctl.evaluate.label_free import measures as unlabelled
from sslctl.evaluate.label_free.measures import alignment, alpha_req, lidar, nesum, rankme, spectrum, uniformity

Array = NDArray[np.float64]
N, Q, D = 60, 5, 12


@pytest.fixture
def x() -> Array:
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, D)) @ np.diag(1.5 ** -np.arange(D)) @ rng.normal(size=(D, D)) + 0.3


@pytest.fixture
def views(x: Array) -> Array:
    return x[:, None] + np.random.default_rng(1).normal(size=(N, Q, D)) * np.linspace(0.02, 0.5, D)


def t(values: Array) -> Tensor:
    return torch.from_numpy(values).float()


def entropy_rank(values: Array) -> float:
    p = values / np.abs(values).sum() + 1e-7
    return float(np.exp(-np.sum(p * np.log(p))))


def unit(values: Array) -> Array:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def test_rankme(x: Array) -> None:
    assert rankme(t(x)) == pytest.approx(entropy_rank(np.linalg.svd(x, compute_uv=False)), rel=1e-5)


def test_rankme_of_known_matrices() -> None:
    basis = torch.linalg.qr(torch.randn(40, 8, generator=torch.Generator().manual_seed(0)))[0]
    assert rankme(basis) == pytest.approx(8, rel=1e-4)  # all singular values equal
    assert rankme(basis[:, :1] @ torch.ones(1, 8)) == pytest.approx(1, rel=1e-4)
    assert rankme(torch.zeros(5, 3)) == 1
    assert rankme(5 * basis) == pytest.approx(rankme(basis))
    assert rankme(torch.ones(40, 8)) == pytest.approx(1, rel=1e-4)  # not centred: the mean counts as a direction


def test_spectrum_and_nesum(x: Array) -> None:
    expected = np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1]
    np.testing.assert_allclose(spectrum(t(x)).numpy(), expected, rtol=1e-4, atol=1e-9)
    assert nesum(spectrum(t(x))) == pytest.approx(expected.sum() / expected[0], rel=1e-5)
    assert nesum(torch.ones(7, dtype=torch.float64)) == 7 and nesum(torch.zeros(3, dtype=torch.float64)) == 0


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.7])
def test_alpha_is_that_of_a_power_law(alpha: float) -> None:
    values = 3.0 * torch.arange(1, 201, dtype=torch.float64) ** -alpha
    values[:3] = 50  # the first three are not looked at, nor what comes after the hundredth
    values[100:] = 1e-3 * values[99]
    assert alpha_req(values) == pytest.approx(alpha)


def test_alpha_is_the_weighted_fit_of_the_authors_code(x: Array) -> None:
    values = np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1]
    i = np.arange(4, D + 1)
    w, a = 1 / i, np.stack([-np.log(i), np.ones(len(i))], 1)
    fit = np.linalg.solve(a.T @ (a * w[:, None]), a.T @ (w * np.log(values[3:])))
    assert alpha_req(torch.from_numpy(values.copy())) == pytest.approx(fit[0])
    assert math.isnan(alpha_req(torch.tensor([3.0, 2.0, 1.0, 1.0, 1.0, 0.0], dtype=torch.float64)))


def test_lidar(views: Array) -> None:
    means = views.mean(1)
    between = np.cov(means.T, bias=True)
    within = np.mean([np.cov(image.T, bias=True) for image in views], 0) + 1e-4 * np.eye(D)
    values, vectors = np.linalg.eigh(within)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    expected = entropy_rank(np.linalg.eigvalsh(root @ between @ root))
    assert lidar(t(views)) == pytest.approx(expected, rel=1e-4)
    assert expected < 11  # far from the trivial answer


def test_lidar_counts_the_directions_that_views_leave_alone() -> None:
    g = torch.Generator().manual_seed(0)
    signal, noise = torch.randn(500, 1, 10, generator=g), torch.randn(500, 20, 10, generator=g)
    strong = torch.tensor([1.0] * 4 + [0.0] * 6)
    assert lidar(signal * strong + 0.01 * noise) == pytest.approx(4, abs=0.1)
    same = (signal * strong + 0.01 * noise)[:, :, torch.randperm(10, generator=g)]
    assert lidar(same) == pytest.approx(lidar(signal * strong + 0.01 * noise))
    assert rankme((signal + noise)[:, 0]) > 9.5  # which sees no difference between signal and noise


def test_alignment_and_uniformity(x: Array, views: Array) -> None:
    z = unit(views)
    pairs = [(i, j) for i in range(Q) for j in range(i)]
    expected = np.mean([np.mean(np.sum((z[:, i] - z[:, j]) ** 2, -1)) for i, j in pairs])
    assert alignment(t(views)) == pytest.approx(expected, rel=1e-4)
    z = unit(x)
    distances = [np.sum((z[i] - z[j]) ** 2) for i in range(N) for j in range(i)]
    assert uniformity(t(x)) == pytest.approx(np.log(np.mean(np.exp(-2 * np.array(distances)))), rel=1e-4)


def test_alignment_and_uniformity_of_known_features(monkeypatch: pytest.MonkeyPatch) -> None:
    same = torch.ones(6, 3, 4)
    assert alignment(same) == pytest.approx(0) and uniformity(same[:, 0]) == pytest.approx(0)
    opposite = torch.stack([torch.eye(4), -torch.eye(4)], 1)
    assert alignment(opposite) == pytest.approx(4)
    assert uniformity(opposite[:, 0]) == pytest.approx(-4)  # every pair at a right angle: squared distance 2
    monkeypatch.setattr(unlabelled, "BLOCK", 3)
    assert uniformity(opposite.flatten(0, 1)) == pytest.approx(math.log((24 * math.exp(-4) + 4 * math.exp(-8)) / 28))
