"""Health: collapsed embeddings are called collapsed, spread ones are not."""

import math

import pytest
import torch

from sslctl.engine.health import health


def test_isotropic_embeddings_have_unit_std_and_nearly_full_rank():
    state = health(torch.randn(512, 64, generator=torch.Generator().manual_seed(0)))
    assert state.std == pytest.approx(1.0, abs=0.03)
    assert 55 < state.rank <= 64
    assert state.full == 64
    assert state.word == "learning"


def test_equal_embeddings_are_collapsed():
    state = health(torch.ones(128, 32) + 1e-7)
    assert state.std < 1e-3
    assert state.rank == pytest.approx(1.0, abs=1e-3)
    assert state.collapsed
    assert "collapsed" in str(state)


def test_embeddings_on_a_line_are_collapsed_though_their_std_is_not_zero():
    g = torch.Generator().manual_seed(1)
    x = torch.randn(256, 1, generator=g) * torch.randn(1, 32, generator=g)
    state = health(x)
    assert state.rank == pytest.approx(1.0, abs=0.01)
    assert state.collapsed


def test_rank_of_two_equal_directions_is_two():
    x = torch.eye(2).repeat(50, 1) @ torch.randn(2, 16, generator=torch.Generator().manual_seed(2))
    x = torch.cat([x, -x])  # centred: both directions carry the same energy once they are orthogonal
    q, _ = torch.linalg.qr(torch.randn(16, 2, generator=torch.Generator().manual_seed(3)))
    y = torch.cat([q.T.repeat(50, 1), -q.T.repeat(50, 1)])
    assert health(y).rank == pytest.approx(2.0, abs=1e-3)
    assert health(x).rank <= 2.001


def test_numbers_that_are_not_finite_are_collapsed_not_an_error():
    assert health(torch.full((8, 4), math.nan)).collapsed


def test_targets_that_say_nothing_are_named():
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(4))
    assert health(x, target_entropy=0.5).word == "learning"
    assert health(x, target_entropy=0.999).word == "stuck (uniform targets)"
