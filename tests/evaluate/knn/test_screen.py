"""Rows found by products in bfloat16 are exactly those of a full sort, or the screen says that it cannot tell."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslctl.evaluate.knn import search as search
from sslctl.evaluate.knn.screen import BLOCK, Screen


def rows(n: int, seed: int, width: int = 24) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=g) * torch.rand(n, 1, generator=g).exp()  # of several lengths


def exact(train: Tensor, queries: Tensor) -> Tensor:
    return F.normalize(queries.double(), dim=1) @ F.normalize(train.double(), dim=1).T


@pytest.mark.parametrize("n", [100 * BLOCK, 100 * BLOCK + 1])
def test_the_nearest_are_those_of_a_full_sort(n: int) -> None:
    train, queries = rows(n, 0), F.normalize(rows(50, 1), dim=1)
    found = Screen.made(train, 20, 50).nearest(queries)
    assert found is not None
    similarity, index = found
    torch.testing.assert_close(similarity.double(), exact(train, queries).topk(20, 1)[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(exact(train, queries).gather(1, index), similarity.double(), rtol=0, atol=1e-6)


def test_rows_nearer_to_each_other_than_bfloat16_tells_are_told_apart() -> None:
    """A hundred rows around each query that differ by less than half a step of bfloat16."""
    queries = F.normalize(rows(4, 2), dim=1)
    near = (queries[:, None] + 3e-3 * torch.randn(4, 100, 24, generator=torch.Generator().manual_seed(3))).flatten(0, 1)
    train = torch.cat([near, rows(100 * BLOCK, 4)])
    rough = F.normalize(train, dim=1).bfloat16() @ queries.bfloat16().T
    assert len(rough[:100, 0].unique()) < 10  # bfloat16 alone could not rank them
    found = Screen.made(train, 20, 4).nearest(queries)
    assert found is not None
    assert [set(row) for row in found[1].tolist()] == [
        set(row) for row in exact(train, queries).topk(20, 1)[1].tolist()
    ]


def test_no_row_is_its_own_neighbour() -> None:
    train = rows(100 * BLOCK, 5)
    found = Screen.made(train, 10, 30).nearest(F.normalize(train[40:70], dim=1), own=40)
    assert found is not None
    others = exact(train, train[40:70])
    others.diagonal(40).fill_(-torch.inf)
    torch.testing.assert_close(found[0].double(), others.topk(10, 1)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("apart", [0.0, 1e-3])
def test_it_cannot_tell_where_all_are_alike(apart: float) -> None:
    train = torch.ones(100 * BLOCK, 24) + apart * rows(100 * BLOCK, 6)
    assert Screen.made(train, 5, 8).nearest(F.normalize(train[:8], dim=1)) is None


def test_it_cannot_tell_where_there_is_no_number() -> None:
    train = rows(100 * BLOCK, 6)
    train[5, 3] = torch.nan
    assert Screen.made(train, 5, 8).nearest(F.normalize(rows(8, 1), dim=1)) is None


def test_it_cannot_tell_where_few_are_on_the_same_side() -> None:
    train = rows(100 * BLOCK, 7).abs()
    assert Screen.made(train, 5, 8).nearest(F.normalize(-train[:8], dim=1)) is None


@pytest.mark.parametrize("collapsed", [False, True])
@pytest.mark.parametrize("alone", [False, True])
def test_the_search_is_the_same_with_it(monkeypatch: pytest.MonkeyPatch, collapsed: bool, alone: bool) -> None:
    """Also where the screen gives up after some queries: the second half of them has all rows about as near."""
    train = rows(60 * BLOCK, 8)
    if collapsed:  # away from all others, which see none of them among their nearest
        train[:, 0] = 0
        train[30 * BLOCK :] *= 1e-3
        train[30 * BLOCK :, 0] = 1
    test = train if alone else torch.cat([train[:300] + train[300:600], train[-300:]])
    took: list[bool] = []

    class Watched(Screen):
        def nearest(self, queries: Tensor, own: int | None = None) -> tuple[Tensor, Tensor] | None:
            found = super().nearest(queries, own)
            took.append(found is not None)
            return found

    monkeypatch.setattr(Watched, "of", lambda train, k, budget: Watched.made(train, k, 256))
    monkeypatch.setattr(search, "Screen", Watched)
    similarity, index = (torch.cat(part) for part in zip(*search.neighbours(train, test, 7, alone=alone), strict=True))
    assert any(took) and all(took) is not collapsed and len(index) == len(test)
    others = exact(train, test)
    if alone:
        others.diagonal().fill_(-torch.inf)
    torch.testing.assert_close(similarity.double(), others.topk(7, 1)[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(others.gather(1, index), similarity.double(), rtol=0, atol=1e-6)


def test_it_is_left_out_where_it_would_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sslctl.evaluate.knn.screen.cpu_has_bf16", lambda: True)
    many, budget = rows(100 * BLOCK, 10), 32 << 20
    made = Screen.of(many, 20, budget)
    assert made is not None and made.half.nbytes + made.room.nbytes <= budget
    assert Screen.of(many, 90, budget) is None  # nearly every block would have a neighbour
    assert Screen.of(many.double(), 20, budget) is None
    assert Screen.of(many, 20, many.nbytes) is None  # no room beside the copy
    monkeypatch.setattr("sslctl.evaluate.knn.screen.cpu_has_bf16", lambda: False)
    assert Screen.of(many, 20, budget) is None
