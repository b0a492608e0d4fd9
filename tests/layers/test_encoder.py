"""Passes of an encoder over many views: which views share a pass, in what order they come back."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from sslctl.layers.encoder import Encoder, encode, encode_each, encode_in_groups, encode_shuffled

from ..stubs import StubBackbone
from .drawing import randn


class Spy(StubBackbone):
    """A backbone that remembers the batches it saw: mean and largest of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def pool(self, x: Tensor) -> Tensor:
        self.seen.append(tuple(x.shape))
        return torch.stack([x.mean((1, 2, 3)), x.amax((1, 2, 3))], 1)


def test_views_of_one_size_go_together_and_come_back_in_order() -> None:
    views = [randn(3, 3, size, size, seed=i) for i, size in enumerate([8, 8, 4, 4, 4])]
    head = nn.Linear(2, 5).double()
    spy = Spy()
    h, z = encode(Encoder(spy, head), views)
    assert spy.seen == [(6, 3, 8, 8), (9, 3, 4, 4)]
    for i, view in enumerate(views):
        torch.testing.assert_close(h[i], Spy().pool(view))
        torch.testing.assert_close(z[i], head(Spy().pool(view)))


def test_the_head_sees_all_views_at_once() -> None:
    views = [randn(4, 3, 8, 8, seed=1), randn(4, 3, 4, 4, seed=2)]
    head = nn.Sequential(nn.BatchNorm1d(2)).double()
    _, z = encode(Encoder(Spy(), head), views)
    torch.testing.assert_close(z.flatten(0, 1).mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)
    assert z[0].mean(0).abs().max() > 1e-3, "each view by itself is not centred"


class Normed(StubBackbone):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def pool(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


def with_norms() -> Encoder:
    return Encoder(Normed(), nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))).double()


def test_each_view_by_itself_has_statistics_of_its_own() -> None:
    views = [randn(6, 3, 8, 8, seed=i) + i for i in range(3)]
    h, z = encode_each(with_norms(), views)
    assert h.shape == (3, 6, 4) and z.shape == (3, 6, 5)
    torch.testing.assert_close(h.mean((0, 1)), torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(z.mean(1), torch.zeros(3, 5, dtype=torch.float64), atol=1e-12, rtol=0)
    _, together = encode(with_norms(), views)
    assert together.mean(1).abs().max() > 0.01


@pytest.mark.parametrize("sizes", [[8, 8], [8, 6]])
def test_groups_are_passes_of_their_own_to_value_gradient_and_running_statistics(sizes: list[int]) -> None:
    views = [randn(7, 3, size, size, seed=i) for i, size in enumerate(sizes)]
    torch.manual_seed(0)
    net = with_norms()
    passes = copy.deepcopy(net)
    h, z = encode_in_groups(net, views, 2)
    parts = [encode(passes, part) for part in zip(*(view.chunk(3) for view in views), strict=True)]
    torch.testing.assert_close(h, torch.cat([h for h, _ in parts], 1), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(z, torch.cat([z for _, z in parts], 1), rtol=1e-12, atol=1e-14)
    z.square().mul(randn(*z.shape)).sum().backward()
    torch.cat([z for _, z in parts], 1).square().mul(randn(*z.shape)).sum().backward()
    for mine, other in zip(net.parameters(), passes.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-9, atol=1e-10)
    for (name, mine), other in zip(net.named_buffers(), passes.buffers(), strict=True):
        if not name.endswith("num_batches_tracked"):  # counts passes, which one pass in groups is not
            torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-14, msg=name)


def test_shuffled_images_share_groups_with_others_and_return_to_their_place() -> None:
    view = randn(6, 3, 8, 8)
    order = torch.tensor([4, 0, 5, 1, 3, 2])
    torch.manual_seed(0)
    z = encode_shuffled(with_norms(), [view], 2, order)
    torch.manual_seed(0)
    _, expected = encode_in_groups(with_norms(), [view[order]], 2)
    torch.testing.assert_close(z[:, order], expected, rtol=1e-12, atol=1e-14)
    assert (z[0, order[:2]].mean(0).abs() < 1e-12).all(), "images 4 and 0 were normalised together"
