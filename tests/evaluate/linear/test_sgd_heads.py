"""Many heads at once are each what torch's own optimizers make of a Linear at its rate."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sslctl.evaluate.linear.sgd_heads import Heads, Rule

RATES = (0.01, 0.1, 1.0)


def batches(steps: int = 5) -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(1)
    return [(torch.randn(16, 6, generator=g), torch.randint(0, 4, (16,), generator=g)) for _ in range(steps)]


@pytest.mark.parametrize(("rule", "decay"), [("sgd", 0.0), ("sgd", 0.01), ("nesterov", 0.01)])
def test_a_head_is_a_linear_under_sgd_at_its_rate(rule: Rule, decay: float) -> None:
    heads = Heads(6, 4, RATES, rule=rule, weight_decay=decay, seed=3)
    start = heads.weight.clone()
    for step, (x, y) in enumerate(batches()):
        heads.step(x, y, 1 / (1 + step))
    for i, rate in enumerate(RATES):
        linear = nn.Linear(6, 4)
        linear.weight.data.copy_(start[i])
        nn.init.zeros_(linear.bias)
        optimizer = torch.optim.SGD(linear.parameters(), rate, 0.9, weight_decay=decay, nesterov=rule == "nesterov")
        for step, (x, y) in enumerate(batches()):
            optimizer.param_groups[0]["lr"] = rate / (1 + step)
            optimizer.zero_grad()
            nn.functional.cross_entropy(linear(x), y).backward()
            optimizer.step()
        torch.testing.assert_close(heads.weight[i], linear.weight.data, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(heads.bias[i], linear.bias.data, rtol=1e-4, atol=1e-5)
        x = batches()[0][0]
        torch.testing.assert_close(heads(x)[i], linear(x).detach(), rtol=1e-4, atol=1e-5)


def test_larc_moves_each_tensor_by_a_share_of_its_own_length() -> None:
    heads = Heads(6, 4, (1.0,), rule="larc", momentum=0.0, std=1.0)
    before = heads.weight.clone()
    heads.step(*batches()[0], 1.0)
    moved = (heads.weight - before).norm() / before.norm()
    assert float(moved) == pytest.approx(0.001, rel=1e-4)
    assert float(heads.bias.abs().amax()) > 0, "a tensor of length zero takes its gradient as it is"


def test_heads_begin_alike_and_one_that_leaves_the_numbers_is_told() -> None:
    heads = Heads(6, 4, (0.1, 1e38), seed=2)
    assert torch.equal(heads.weight[0], heads.weight[1]) and heads.finite.tolist() == [True, True]
    for x, y in batches():
        heads.step(100 * x, y, 1.0)
    assert heads.finite.tolist() == [True, False]
    assert torch.equal(Heads(6, 4, (0.1,), seed=2).weight[0], Heads(6, 4, (0.2,), seed=2).weight[0])
