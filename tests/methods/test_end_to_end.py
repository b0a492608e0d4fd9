"""The end-to-end dictionary: queries find the key of their image among those of the batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from sslctl.errors import SpecError
from sslctl.methods.base import Context, Views
from sslctl.methods.end_to_end import EndToEnd, EndToEndParams
from sslctl.schedule import Step


def test_end_to_end_finds_its_key_among_the_batch(net: Callable[[], Any], random_views: Callable[..., Views]) -> None:
    method = EndToEnd(EndToEndParams(out=5, norm_groups=1), net(), Context(1000, 6)).double().eval()
    views = random_views((2, 16), (1, 8))
    views = Views([x.double().requires_grad_() for x in views.globals], [views.locals[0].double()], views.index)
    q0, k, q1 = (nn.functional.normalize(method.student(x), dim=-1) for x in views.all)
    own = torch.arange(6)
    expected = torch.stack([nn.functional.cross_entropy(q @ k.T / 0.07, own) for q in (q0, q1)]).mean()
    loss = method(views, Step(0, 4, 2)).loss
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    gradients = [torch.autograd.grad(x, views.globals, retain_graph=True) for x in (loss, expected)]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-14)
    assert gradients[0][1].abs().max() > 0, "keys take gradient"


def test_keys_are_normalised_in_groups_of_other_images(
    net: Callable[[], Any], random_views: Callable[..., Views]
) -> None:
    """One group has the statistics of the whole batch; those of several follow the order, which the step draws."""
    method = EndToEnd(EndToEndParams(out=5, norm_groups=3), net(), Context(1000, 6)).train()
    views = random_views((2, 16))
    losses = [method(views, Step(index, 9, 3)).loss.item() for index in (0, 0, 1, 2)]
    assert losses[0] == losses[1] and len(set(losses)) == 3
    alone = EndToEnd(EndToEndParams(out=5, norm_groups=1), net(), Context(1000, 6)).train()
    whole = [alone(views, Step(index, 9, 3)).loss.item() for index in (0, 1)]
    assert whole[0] == pytest.approx(whole[1], rel=1e-5), "the order within one group changes nothing"


def test_one_view_is_refused(net: Callable[[], Any]) -> None:
    with pytest.raises(SpecError, match="compares 2 or more"):
        EndToEnd(EndToEndParams(), net(), Context(100, 6, globals=1))


def test_chance_is_ln_of_the_batch() -> None:
    chance = EndToEnd.chance(EndToEndParams(), Context(1000, 64))
    assert chance.level == pytest.approx(math.log(64)) and chance.formula == "ln B"
