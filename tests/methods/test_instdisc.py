"""InstDisc against the authors' memory, NCE and full softmax; its negatives and views.

Golden: zhirongw/lemniscate.pytorch, lib/NCEAverage.py, NCECriterion.py and LinearAverage.py, in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslctl.layers.precision import unit
from sslctl.methods.base import Context, Views
from sslctl.methods.instdisc import EPS, InstDisc, InstDiscParams
from sslctl.schedule import Step

from ..stubs import Flat
from .compare import part

CLOSE = {"rtol": 2e-5, "atol": 2e-6}
Golden = Callable[[str], dict[str, Tensor]]


def make(net: Any, images: int = 20, **params: Any) -> InstDisc:
    torch.manual_seed(0)
    return InstDisc(InstDiscParams(out=6, **params), net(), Context(images, 4, globals=1))


def test_nce_and_memory_are_the_authors(golden: Golden, net: Callable[[], Any]) -> None:
    case = golden("instdisc")
    method = make(net)
    method.memory.copy_(case["memory0"])
    for i in range(3):
        at = part(case, f"step{i}/")
        x = at["x"].requires_grad_()
        loss = method.nce(x[None], at["index"], at["drawn"][:, 1:])
        torch.testing.assert_close(loss, at["loss"][0], **CLOSE)
        torch.testing.assert_close(torch.autograd.grad(loss, x)[0], at["grad_x"], **CLOSE)
        method.remember(x, at["index"])
        torch.testing.assert_close(method.memory, at["memory_after"], **CLOSE)
        torch.testing.assert_close(method.normalizer, at["Z"], **CLOSE)


def test_the_full_softmax_is_the_authors(golden: Golden, net: Callable[[], Any]) -> None:
    case = part(golden("instdisc"), "full/")
    method = make(net, negatives=0)
    method.memory.copy_(case["memory0"])
    x = case["x"].requires_grad_()
    method.student.forward = lambda _: x  # type: ignore[method-assign, assignment]
    method.student.backbone, method.student.head = Flat(), torch.nn.Identity()
    output = method(Views([x], [], case["index"]), Step(0, 4, 2))
    torch.testing.assert_close(output.loss, case["loss"], **CLOSE)
    gradient = torch.autograd.grad(output.loss, x)[0]
    torch.testing.assert_close(gradient, case["grad_x"] - unit_part(case), **CLOSE)
    torch.testing.assert_close(method.memory, case["memory_after"], **CLOSE)


def unit_part(case: dict[str, Tensor]) -> Tensor:
    """What normalising takes off the authors' gradient, which is that of the unit vector: its part along it."""
    x, g = case["x"].detach(), case["grad_x"]
    return (g * x).sum(1, keepdim=True) * x


@pytest.mark.parametrize("negatives", [0, 5])
def test_every_view_finds_its_image_and_globals_are_remembered(
    net: Callable[[], Any], random_views: Callable[..., Views], negatives: int
) -> None:
    method = make(net, negatives=negatives).double().eval()
    views = random_views((2, 16), (2, 8))
    views = Views([x.double() for x in views.globals], [x.double() for x in views.locals], torch.arange(6) + 7)
    z = unit(torch.stack([method.student(x) for x in views.all]))
    before = method.memory.clone()
    loss = method(views, Step(0, 4, 2)).loss
    if not negatives:
        each = [F.cross_entropy(x @ before.T / 0.07, views.index) for x in z]
        torch.testing.assert_close(loss, torch.stack(each).mean(), rtol=1e-9, atol=0)
    expected = unit(0.5 * before[7:13] + 0.5 * (z[0] + z[1]) / 2)
    torch.testing.assert_close(method.memory[7:13], expected.detach())
    others = [i for i in range(20) if not 7 <= i < 13]
    assert torch.equal(method.memory[others], before[others])


def test_noise_contrast_is_its_formula(net: Callable[[], Any]) -> None:
    method = make(net).double()
    g = torch.Generator().manual_seed(0)
    z = unit(torch.randn(2, 4, 6, generator=g, dtype=torch.float64))
    index, drawn = torch.tensor([3, 0, 19, 7]), torch.randint(20, (4, 5), generator=g)
    scores = {
        (v, b, j): (z[v, b] @ method.memory[j] / 0.07).exp() for v in range(2) for b in range(4) for j in range(20)
    }
    seen = [[index[b].item(), *drawn[b].tolist()] for b in range(4)]
    constant = 20 * torch.stack([scores[v, b, j] for v in range(2) for b in range(4) for j in seen[b]]).mean()
    losses = []
    for v in range(2):
        for b in range(4):
            p = [scores[v, b, j] / constant for j in seen[b]]
            own = (p[0] / (p[0] + 5 / 20 + EPS)).log()
            losses.append(-own - sum((5 / 20 / (x + 5 / 20 + EPS)).log() for x in p[1:]))
    torch.testing.assert_close(method.nce(z, index, drawn), torch.stack(losses).mean(), rtol=1e-9, atol=0)
    kept = method.normalizer.clone()
    method.nce(unit(z + 1), index, drawn)
    assert torch.equal(method.normalizer, kept), "estimated once"


def test_negatives_change_with_step_and_seed_alone(net: Callable[[], Any], random_views: Callable[..., Views]) -> None:
    def loss(seed: int, index: int) -> float:
        torch.manual_seed(0)
        method = InstDisc(InstDiscParams(out=6, negatives=5), net(), Context(50, 6, globals=1))
        return float(method(random_views((1, 16)), Step(index, 4, 2, seed)).loss.detach())

    assert loss(0, 1) == loss(0, 1)
    assert len({loss(0, 1), loss(0, 2), loss(1, 1)}) == 3


def test_the_proximal_term_is_the_distance_to_the_row(
    net: Callable[[], Any], random_views: Callable[..., Views]
) -> None:
    views = random_views((1, 16))
    with_term, without = (make(net, negatives=0, proximal=w) for w in (30.0, 0.0))
    z = unit(without.student(views.globals[0]))
    distance = (z - without.memory[:6]).square().sum(1).mean()
    difference = with_term(views, Step(0, 4, 2)).loss - without(views, Step(0, 4, 2)).loss
    torch.testing.assert_close(difference, 30 * distance)
