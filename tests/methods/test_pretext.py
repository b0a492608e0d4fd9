"""RotNet, Jigsaw, CPC and supervised training: their inputs, labels and losses against authors' numbers and loops.

Golden: gidariss/FeatureLearningRotNet, dataloader.py; MehdiNoroozi/JigsawPuzzleSolver's permutations; VISSL's tiles;
CPC's InfoNCE is an independent computation in float64, for there is no official code.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslctl.errors import DataError, SpecError
from sslctl.layers.losses import info_nce_below
from sslctl.methods.base import Context, Views
from sslctl.methods.cpc import CPC, ContextNetwork, CPCParams, jitter_patches
from sslctl.methods.jigsaw import Jigsaw, JigsawParams, distant_permutations
from sslctl.methods.rotnet import RotNet, RotNetParams, rotations
from sslctl.methods.supervised import Supervised, SupervisedParams
from sslctl.schedule import Step

from .compare import same

Golden = Callable[[str], dict[str, Tensor]]
STEP = Step(3, 10, 5)


def test_rotations_are_the_authors(golden: Golden) -> None:
    case = golden("rotnet_jigsaw")
    turned = rotations(case["rotnet/img"].permute(2, 0, 1)[None], 4)
    for label, degrees in enumerate((0, 90, 180, 270)):
        assert torch.equal(turned[label][0].permute(1, 2, 0), case[f"rotnet/label{label}_rot{degrees}"])


@pytest.mark.parametrize("turns", [4, 2])
def test_rotnet_tells_every_turn_of_every_view(
    net: Callable[[], Any], random_views: Callable[..., Views], turns: int
) -> None:
    method = RotNet(RotNetParams(turns=turns), net(), Context(100, 6)).eval()
    views = random_views((1, 16), (2, 8))
    each = [
        F.cross_entropy(method.student(torch.rot90(x, k, (2, 3))), torch.full((6,), k))
        for x in views.all
        for k in range(turns)
    ]
    output = method(views, STEP)
    torch.testing.assert_close(output.loss, torch.stack(each).mean())
    assert 0 <= output.logs["accuracy"] <= 1


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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_cpcs_contrast_is_the_reference(golden: Golden, dtype: torch.dtype) -> None:
    case = {k: v.to(dtype) for k, v in golden("cpc_reference").items()}
    z, context = case["z"].requires_grad_(), case["context"].requires_grad_()
    losses = [info_nce_below(context @ case["W"][k - 1], z, k) for k in (2, 3)]
    same(torch.stack(losses), case["loss_per_k"])
    same(sum(losses), case["loss"])  # type: ignore[arg-type]
    gradients = torch.autograd.grad(sum(losses), [z, context])  # type: ignore[arg-type]
    same(gradients[0], case["grad_z"])
    same(gradients[1], case["grad_context"])


def test_a_context_sees_its_row_and_those_above() -> None:
    torch.manual_seed(0)
    params = CPCParams(grid=5, first_step=1, last_step=2, layers=2, hidden=6, out=4)
    context = ContextNetwork(3, params).double()
    h = torch.randn(1, 5, 5, 3, dtype=torch.float64, requires_grad=True)
    out = context(h)  # (2, 1, 5, 5, 4)
    (gradient,) = torch.autograd.grad(out[:, 0, 2, 2].sum(), h)
    seen = gradient[0].abs().sum(-1) > 0
    assert not seen[3:].any(), "nothing below"
    assert seen[2, 2] and seen[1].any() and seen[0].any(), "two layers see two rows up"


def cpc(net: Any, **params: Any) -> CPC:
    torch.manual_seed(0)
    sizes = {"grid": 3, "patch": 0.5, "first_step": 1, "last_step": 2, "layers": 1, "hidden": 6, "out": 4}
    return CPC(CPCParams(**{**sizes, **params}), net(), Context(100, 6))


def test_patches_are_evenly_spaced_from_edge_to_edge(net: Callable[[], Any]) -> None:
    view = torch.arange(256.0).expand(1, 1, 256, 256)
    patches = cpc(net, grid=7, patch=0.25).cut(view)
    assert len(patches) == 49 and patches[0].shape[-2:] == (64, 64)
    assert [p[0, 0, 0, 0].item() for p in patches[:7]] == [32.0 * i for i in range(7)], "version 1's grid"
    second = cpc(net, grid=6, patch=80 / 260).cut(torch.arange(260.0).expand(1, 1, 260, 260))
    assert [p[0, 0, 0, 0].item() for p in second[:6]] == [36.0 * i for i in range(6)], "version 2's grid"


@pytest.mark.parametrize("directions", [1, 4])
def test_cpc_predicts_from_each_side(
    net: Callable[[], Any], random_views: Callable[..., Views], directions: int
) -> None:
    method = cpc(net, directions=directions).eval()
    (view,) = random_views((1, 16)).globals
    h = torch.stack([method.student.backbone(x).pooled for x in method.cut(view)], 1).view(6, 3, 3, -1)
    each = []
    for turn in range(directions):
        features = torch.rot90(h, turn, (1, 2))
        below = method.contexts[turn](features)
        targets = method.student.head(features)
        each.append(sum(info_nce_below(0.1 * below[k - 1], targets, k) for k in (1, 2)))
    loss = method(Views([view], [], torch.arange(6)), STEP).loss
    torch.testing.assert_close(loss, torch.stack(each).mean())  # type: ignore[arg-type]


def test_each_patch_gets_a_colour_of_its_own_and_keeps_its_content(random_views: Callable[..., Views]) -> None:
    (view,) = random_views((1, 16)).globals
    done = jitter_patches([view, view], 1.0, STEP)
    assert all(torch.equal(x, y) for x, y in zip(done, jitter_patches([view, view], 1.0, STEP), strict=True))
    contrasts = []
    for x in done:
        assert x.shape == view.shape and torch.equal(x[:, 0], x[:, 2])
        for image, original in zip(x[:, 0].flatten(1), view.flatten(2), strict=True):
            likeness = [torch.corrcoef(torch.stack([image, channel]))[0, 1].item() for channel in original]
            assert max(likeness) == pytest.approx(1, abs=1e-4), "one of the channels, at another contrast"
            channel = original[likeness.index(max(likeness))]
            contrasts.append((image.std() / channel.std()).item())
            assert abs(image.mean() - channel.mean()) <= 1.5
    assert 0.4 <= min(contrasts) < 0.8 and 1.2 < max(contrasts) <= 1.6
    assert not torch.equal(*done)


def test_steps_beyond_the_grid_are_refused(net: Callable[[], Any]) -> None:
    with pytest.raises(SpecError, match="steps 1 to 3 do not fit a grid of 3"):
        cpc(net, last_step=3)


def test_supervised_is_cross_entropy_with_the_labels(
    net: Callable[[], Any], random_views: Callable[..., Views]
) -> None:
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    views = replace(random_views((1, 16), (1, 8)), labels=labels)
    method = Supervised(SupervisedParams(label_smoothing=0.1), net(), Context(100, 6, classes=3)).eval()
    each = [F.cross_entropy(method.student(x), labels, label_smoothing=0.1) for x in views.all]
    output = method(views, STEP)
    torch.testing.assert_close(output.loss, torch.stack(each).mean())
    right = torch.cat([method.student(x).argmax(1) == labels for x in views.all]).float().mean()
    torch.testing.assert_close(output.logs["accuracy"], right)


def test_without_labels_supervised_training_is_refused(
    net: Callable[[], Any], random_views: Callable[..., Views]
) -> None:
    with pytest.raises(DataError, match="no classes") as refused:
        Supervised(SupervisedParams(), net(), Context(100, 6))
    assert "--method simclr" in refused.value.hint
    method = Supervised(SupervisedParams(), net(), Context(100, 6, classes=3))
    with pytest.raises(DataError, match="no labels"):
        method(replace(random_views((1, 16)), labels=None), STEP)
