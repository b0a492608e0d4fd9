"""Nearest rows: exactly those of a full sort, whatever the budget cuts the work into, and within it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslctl.evaluate.knn.search import BLOCK, ROWS, largest, neighbours
from sslctl.runtime.device import fast_matmul


def rows(n: int, seed: int, width: int = 16) -> Tensor:
    x = torch.randn(n, width, generator=torch.Generator().manual_seed(seed))
    return x * torch.rand(n, 1, generator=torch.Generator().manual_seed(seed + 1)).exp()  # of several lengths


def expected(train: Tensor, test: Tensor, k: int) -> Tensor:
    return (F.normalize(test.double(), dim=1) @ F.normalize(train.double(), dim=1).T).topk(k, 1)[0].float()


@pytest.mark.parametrize("n", [1, 31, 3000])
@pytest.mark.parametrize("budget", [1, 1 << 18, 1 << 26])
def test_neighbours_are_those_of_a_full_sort(n: int, budget: int) -> None:
    train, test = rows(n, 0), rows(300, 5)
    k = min(n, 10)
    similarity, index = (torch.cat(part) for part in zip(*neighbours(train, test, k, budget), strict=True))
    torch.testing.assert_close(similarity, expected(train, test, k), rtol=0, atol=1e-6)
    own = (F.normalize(test, dim=1)[:, None] * F.normalize(train, dim=1)[index]).sum(2)
    torch.testing.assert_close(own, similarity, rtol=0, atol=1e-6)


@pytest.mark.parametrize("budget", [1 << 18, 1 << 26])
def test_no_row_is_its_own_neighbour(budget: int) -> None:
    x = rows(700, 3)
    start = 0
    for similarity, index in neighbours(x, x, 699, budget, alone=True):
        own = torch.arange(start, start + len(index))
        assert not bool((index == own[:, None]).any()) and bool((similarity > -1.001).all())
        assert all(len(row.unique()) == 699 for row in index)
        start += len(index)
    assert start == 700


def test_what_is_looked_at_is_every_similarity_once() -> None:
    train, test, seen = rows(500, 0), rows(90, 5), []

    def look(start: int, similarity: Tensor) -> None:
        seen.append((start, similarity.clone()))
        similarity.zero_()  # it may

    (similarity, _), *more = list(neighbours(train, test, 4, 40 * 1000 * 4, look=look))
    assert more and [start for start, _ in seen] == [len(similarity) * i for i in range(len(seen))]
    whole = F.normalize(test, dim=1) @ F.normalize(train, dim=1).T
    torch.testing.assert_close(torch.cat([part for _, part in seen]), whole, rtol=0, atol=1e-6)


def test_the_budget_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test, most = rows(20000, 0), rows(2 * ROWS, 5), 0
    plain = torch.mm

    def mm(a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
        nonlocal most
        most = max(most, out.untyped_storage().nbytes())
        return plain(a, b, out=out)

    monkeypatch.setattr(torch, "mm", mm)
    for budget in (4 << 20, 16 << 20):
        most = 0
        list(neighbours(train, test, 20, budget))
        assert 0.5 * budget < most <= budget


@pytest.mark.parametrize("n", [2 * BLOCK, 80 * BLOCK, 400 * BLOCK])
def test_search_by_blocks_finds_the_largest(n: int) -> None:
    x = torch.randn(5, n, generator=torch.Generator().manual_seed(n))
    x[1] = x[1].round()  # many equal values
    x[2, : n // 2] = -torch.inf
    values, index = largest(x, 20)
    torch.testing.assert_close(values, x.topk(20, 1).values, rtol=0, atol=0)
    torch.testing.assert_close(x.gather(1, index), values, rtol=0, atol=0)


def test_quick_products_keep_float32_and_the_setting() -> None:
    a, b = rows(300, 1, 384), rows(200, 2, 384)
    before = torch.get_float32_matmul_precision()
    with fast_matmul(a):
        found = a @ b.T
    assert torch.get_float32_matmul_precision() == before
    torch.testing.assert_close(found.double(), a.double() @ b.double().T, rtol=1e-4, atol=1e-4)
