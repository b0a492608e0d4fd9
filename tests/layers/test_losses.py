"""Losses that objectives share, each against a loop over its formula, in value and gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslctl.layers.losses import (
    info_nce,
    info_nce_below,
    mean_cosines,
    mean_of_others,
    queue_contrast,
    squared_products,
    swapped_cross_entropy,
    view_pairs,
)

from .drawing import randn


def test_swapped_cross_entropy_is_the_mean_over_pairs_of_different_views() -> None:
    q, s = randn(2, 5, 7).softmax(-1), randn(4, 5, 7, seed=1).requires_grad_()
    by_hand = [-(q[t] * F.log_softmax(s[v] / 0.2, dim=-1)).sum(-1).mean() for t in range(2) for v in range(4) if v != t]
    expected = torch.stack(by_hand).mean()
    loss = swapped_cross_entropy(q, s, 0.2)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(x, s)[0] for x in (loss, expected)), rtol=1e-10, atol=1e-14)


def test_a_mean_of_others_leaves_out_a_view_with_itself() -> None:
    pairs = torch.tensor([[100.0, 1.0, 2.0], [3.0, 100.0, 4.0]])
    assert float(mean_of_others(pairs)) == 10 / 4


def test_pairs_are_of_a_global_view_and_each_later_one() -> None:
    assert view_pairs(2, 4) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3)]
    assert view_pairs(1, 2) == [(0, 1)]


def agree(ours: Tensor, expected: Tensor, of: list[Tensor]) -> None:
    """Value and gradient are the same to float64's last digits."""
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)
    weight = randn(*ours.shape, seed=9)
    for a, b in zip(*(torch.autograd.grad((x * weight).sum(), of) for x in (ours, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_contrast_with_a_queue_is_cross_entropy_with_ones_own_key_first() -> None:
    keys, queries = randn(2, 5, 3), randn(4, 5, 3, seed=1).requires_grad_()
    queue = randn(7, 3, seed=2)
    first = torch.zeros(5, dtype=torch.long)
    every = [
        F.cross_entropy(torch.cat([(k * q).sum(1, keepdim=True), q @ queue.T], 1) / 0.3, first)
        for k in keys
        for q in queries
    ]
    expected = torch.stack(every).view(2, 4)
    agree(queue_contrast(keys, queries, queue, 0.3), expected, [queries])


def test_info_nce_is_cross_entropy_over_the_images_of_the_batch() -> None:
    keys, queries = randn(2, 5, 3).requires_grad_(), randn(3, 5, 3, seed=1).requires_grad_()
    expected = torch.stack(
        [torch.stack([F.cross_entropy(q @ k.T / 0.3, torch.arange(5)) for q in queries]) for k in keys]
    )
    agree(info_nce(keys, queries, 0.3), expected, [keys, queries])


def test_info_nce_below_finds_the_patch_k_rows_below_among_all() -> None:
    targets, predictions = randn(2, 4, 3, 5).requires_grad_(), randn(2, 4, 3, 5, seed=1).requires_grad_()
    every = targets.reshape(-1, 5)
    terms = []
    for image in range(2):
        for row in range(2):  # rows 2 and 3 have none two rows below
            for column in range(3):
                logits = every @ predictions[image, row, column]
                own = (targets[image, row + 2, column] * predictions[image, row, column]).sum()
                terms.append(logits.logsumexp(0) - own)
    agree(info_nce_below(predictions, targets, 2), torch.stack(terms).mean(), [targets, predictions])


def test_mean_cosines_are_those_of_torch() -> None:
    targets, predictions = randn(2, 5, 3), randn(3, 5, 3, seed=1).requires_grad_()
    expected = F.cosine_similarity(targets[:, None], predictions[None], dim=-1).mean(-1)
    agree(mean_cosines(targets, predictions), expected, [predictions])


@pytest.mark.parametrize("rows", [3, 9])
def test_squared_products_are_the_same_by_either_way(rows: int) -> None:
    """Fewer rows than numbers go by rows x rows, others by D x D."""
    x, y = randn(rows, 5).requires_grad_(), randn(rows, 5, seed=1).requires_grad_()
    agree(squared_products(x, y), (x.T @ y).square().sum(), [x, y])
    agree(squared_products(x, x), (x.T @ x).square().sum(), [x])
