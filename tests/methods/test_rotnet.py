"""RotNet: the turns of the authors, and the loss written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslctl.methods.base import Context, Views
from sslctl.methods.rotnet import RotNet, RotNetParams, rotations
from sslctl.schedule import Step

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
