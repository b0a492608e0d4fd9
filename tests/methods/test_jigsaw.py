"""Jigsaw: permutations and tiles against those of the authors, and the loss written out."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslctl.errors import SpecError
from sslctl.methods.base import Context, Views
from sslctl.methods.jigsaw import Jigsaw, JigsawParams, distant_permutations
from sslctl.schedule import Step

Golden = Callable[[str], dict[str, Tensor]]


STEP = Step(3, 10, 5)


def hamming(orders: np.ndarray) -> np.ndarray:
    distance = (orders[:, None] != orders[None]).sum(-1)
    return distance[~np.eye(len(orders), dtype=bool)]


def test_permutations_lie_further_apart_than_the_authors(golden: Golden) -> None:
    case = golden("rotnet_jigsaw")
    orders = distant_permutations(9, 100)
    ours, theirs = hamming(orders), hamming(case["jigsaw/permutations_100_max"].numpy())
    assert theirs.min() == int(case["jigsaw/permutations_100_max.min_hamming"])
    assert ours.min() > theirs.min() and ours.mean() >= theirs.mean() - 0.02
    assert (np.sort(orders, 1) == np.arange(9)).all() and len({tuple(x) for x in orders}) == 100


def test_permutations_are_chosen_greedily() -> None:
    every = list(itertools.permutations(range(4)))
    chosen = [every[0]]
    while len(chosen) < 9:

        def key(order: tuple[int, ...]) -> tuple[int, int]:
            distances = [sum(a != b for a, b in zip(order, c, strict=True)) for c in chosen]
            return min(distances), sum(distances)

        chosen.append(max(every, key=key))
    assert [tuple(x) for x in distant_permutations(4, 9)] == chosen
    with pytest.raises(SpecError, match="only 24 orders"):
        distant_permutations(4, 25)


def jigsaw(net: Any, **params: Any) -> Jigsaw:
    torch.manual_seed(0)
    return Jigsaw(JigsawParams(embed=7, grid=2, permutations=6, **params), net(), Context(100, 6))


def test_tiles_lie_within_their_cells_row_by_row(net: Callable[[], Any]) -> None:
    """On an image whose pixels say where they are: 18 px in 2 x 2 cells of 9, tiles of 7 at offsets 0, 1, 2."""
    ys, xs = torch.meshgrid(torch.arange(18.0), torch.arange(18.0), indexing="ij")
    view = torch.stack([ys, xs, ys * 0])[None].repeat(3, 1, 1, 1)
    shift = torch.tensor([0.0, 0.5, 0.999])[:, None, None].expand(3, 4, 2)
    tiles = jigsaw(net).cut(view, shift)
    assert len(tiles) == 4 and tiles[0].shape == (3, 3, 7, 7)
    for cell, tile in enumerate(tiles):
        row, column = divmod(cell, 2)
        for image, offset in enumerate((0, 1, 2)):
            assert tile[image, 0, :, 0].tolist() == [row * 9 + offset + i for i in range(7)]
            assert tile[image, 1, 0].tolist() == [column * 9 + offset + i for i in range(7)]


def test_tiles_are_those_of_vissl(golden: Golden, net: Callable[[], Any]) -> None:
    """vissl/data/ssl_transforms/img_patches_tensor.py, where tiles go column by column: jitter[x or y, column, row]."""
    case = golden("rotnet_jigsaw")
    jitter = case["vissl_patches/jitter"].permute(2, 1, 0).flip(2).flatten(0, 1)[None]  # (1, row by row, y and x)
    method = Jigsaw(JigsawParams(embed=7, permutations=6, tile=0.8), net(), Context(100, 6))
    tiles = method.cut(case["vissl_patches/x"][None], (jitter + 0.5) / 3)
    ours = torch.cat(tiles).view(3, 3, 3, 8, 8).transpose(0, 1).flatten(0, 1)
    assert torch.equal(ours, case["vissl_patches/patches"])


def test_tiles_can_be_normalised_each(net: Callable[[], Any], random_views: Callable[..., Views]) -> None:
    (view,) = random_views((1, 18)).globals
    tiles = torch.stack(jigsaw(net, normalize_tiles=True).cut(view, torch.rand(6, 4, 2)))
    torch.testing.assert_close(tiles.mean((2, 3, 4)), torch.zeros(4, 6), atol=1e-5, rtol=0)
    torch.testing.assert_close(tiles.std((2, 3, 4)), torch.ones(4, 6), atol=1e-4, rtol=0)


def test_jigsaw_tells_the_order_of_its_tiles(net: Callable[[], Any], random_views: Callable[..., Views]) -> None:
    method = jigsaw(net).eval()
    views = random_views((1, 18), (2, 8))
    cut: list[list[Tensor]] = []
    original = method.cut
    method.cut = lambda view, shift: cut.append(original(view, shift)) or cut[-1]  # type: ignore[method-assign, func-returns-value]
    logits: list[Tensor] = []
    method.classifier.register_forward_hook(lambda _m, _i, out: logits.append(out))
    loss = method(views, STEP).loss
    (tiles,) = cut
    embedded = torch.stack([method.student(tile) for tile in tiles])  # (4, B, E)
    found = []
    for image in range(6):
        for label, order in enumerate(method.permutations.tolist()):
            row = method.classifier(torch.cat([embedded[t, image] for t in order]))
            if torch.allclose(row, logits[0][image, 0], atol=1e-6):
                found.append((row, label))
    assert len(found) == 6, "each image lies in one of the orders"
    rows, labels = zip(*found, strict=True)
    torch.testing.assert_close(loss, F.cross_entropy(torch.stack(rows), torch.tensor(labels)))
    assert len(set(labels)) > 1


def test_puzzles_change_with_step_and_seed_alone(net: Callable[[], Any], random_views: Callable[..., Views]) -> None:
    views = random_views((1, 18))
    losses = [float(jigsaw(net)(views, Step(i, 9, 3, s)).loss.detach()) for s, i in ((0, 1), (0, 1), (0, 2), (1, 1))]
    assert losses[0] == losses[1] and len(set(losses)) == 3


def test_views_too_small_for_tiles_are_refused(net: Callable[[], Any]) -> None:
    backbone = net()
    backbone.patch = 8
    with pytest.raises(SpecError, match=r"14 px: no tile of 8 px fits"):
        jigsaw(lambda: backbone).cut(torch.zeros(1, 3, 14, 14), torch.zeros(1, 4, 2))
