"""Optimizers and gradient clipping against the authors' own, step by step; what they leave alone; how they go on.

The golden inputs are steps of the official optimizers: LARS of barlowtwins, moco-v3, mae, vicreg and dino, LARC of
apex, and LARSOptimizer of google-research/simclr.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sslctl.engine.optimizers import LARS, build_optimizer, clip_gradients
from sslctl.methods.base import Group, Method, Params
from sslctl.spec.schema import OptimSpec

GOLDEN = Path(__file__).parents[1] / "golden"
Rule = Callable[[str, Tensor], bool]


class Weights(Method[Params]):
    """Named tensors; those that ``adapts`` says adapt and decay, the others do neither."""

    def __init__(self, tensors: dict[str, Tensor], adapts: Rule) -> None:
        super().__init__(Params())
        self.names = dict(enumerate(tensors))
        self.list = nn.ParameterList(nn.Parameter(value.clone()) for value in tensors.values())
        self.adapts = adapts

    def groups(self) -> list[Group]:
        some, rest = Group(), Group(decay=False, adapt=False)
        for i, p in enumerate(self.list):
            (some if self.adapts(self.names[i], p) else rest).params.append((self.names[i], p))
        return [some, rest]

    def move(self, optimizer: torch.optim.Optimizer, grads: dict[str, Tensor], lr: float, decay: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = lr
            group["weight_decay"] = decay if group["decay"] else 0.0
        for i, p in enumerate(self.list):
            p.grad = grads[self.names[i]].clone() if self.names[i] in grads else None
        optimizer.step()

    def values(self) -> dict[str, Tensor]:
        return {self.names[i]: p.detach().clone() for i, p in enumerate(self.list)}


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def not_vector(name: str, p: Tensor) -> bool:
    return p.ndim != 1


def matrix(name: str, p: Tensor) -> bool:
    return p.ndim > 1


def everything(name: str, p: Tensor) -> bool:
    return True


VARIANTS = {
    "barlowtwins": ("lars", not_vector),
    "barlowtwins_nofilter": ("lars", everything),
    "vicreg": ("lars", not_vector),
    "dino": ("lars", not_vector),
    "mocov3": ("lars", matrix),
    "mae": ("lars", matrix),
    "apex_larc_sgd": ("larc", everything),
}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_three_steps_are_the_authors(variant: str, dtype: torch.dtype, tolerance: float) -> None:
    golden = {k: v.to(dtype) for k, v in load_file(GOLDEN / "lars_all.safetensors").items()}
    name, rule = VARIANTS[variant]
    method = Weights(part(golden, "param0/"), rule)
    optimizer = build_optimizer(OptimSpec(name=name, momentum=0.9, trust=0.001), method)  # type: ignore[arg-type]
    for i, lr in enumerate(golden["lr_per_step"].tolist()):
        method.move(optimizer, part(golden, f"grad{i}/"), lr, 0.02)
        expected = part(golden, f"{variant}/param{i + 1}/")
        assert len(expected) == 6
        torch.testing.assert_close(method.values(), expected, rtol=tolerance, atol=0)


def test_three_steps_are_byols() -> None:
    """deepmind-research/byol, utils/optimizers.py: biases (named b) and what belongs to a norm are left out."""
    golden = part(load_file(GOLDEN / "byol.safetensors"), "lars/")
    method = Weights(part(golden, "param0/"), lambda name, p: not (name.endswith("/b") or "norm" in name))
    optimizer = build_optimizer(OptimSpec(name="lars", momentum=0.9, trust=0.001), method)
    for i, lr in enumerate((0.5, 0.3, 0.1)):
        method.move(optimizer, part(golden, f"grad{i}/"), lr, 0.02)
        expected = part(golden, f"param{i + 1}/")
        assert len(expected) == 5
        torch.testing.assert_close(method.values(), expected, rtol=1e-12, atol=0)


def simclr_adapts(name: str, p: Tensor) -> bool:
    return not any(word in name for word in ("batch_normalization", "bias", "head_supervised"))


def test_three_steps_are_simclrs() -> None:
    golden = load_file(GOLDEN / "simclr_lars.safetensors")
    method = Weights(part(golden, "param0/"), simclr_adapts)
    optimizer = build_optimizer(OptimSpec(name="lars", momentum=0.9, trust=0.001, lr_in_momentum=True), method)
    for i in range(3):
        method.move(optimizer, part(golden, f"grad{i}/"), 0.4, 0.01)
        expected = part(golden, f"classic/param{i + 1}/")
        assert len(expected) == 6
        torch.testing.assert_close(method.values(), expected, rtol=1e-12, atol=0)


def test_simclrs_momentum_holds_the_learning_rate_of_each_step() -> None:
    """w <- w - m with m <- 0.5 m + lr g: by hand, for two steps of different lr."""
    method = Weights({"w": torch.zeros(2, dtype=torch.float64)}, matrix)
    optimizer = build_optimizer(OptimSpec(name="lars", momentum=0.5, lr_in_momentum=True), method)
    g = torch.tensor([1.0, -2.0], dtype=torch.float64)
    method.move(optimizer, {"w": g}, 1.0, 0.0)
    method.move(optimizer, {"w": g}, 0.1, 0.0)
    torch.testing.assert_close(method.values()["w"], -(1.0 + 0.5 * 1.0 + 0.1) * g)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars", "larc"])
def test_a_parameter_without_gradient_stays_and_joins_later(name: str) -> None:
    """A frozen last layer: untouched while its gradient is dropped, then as one that only begins."""
    generator = torch.Generator().manual_seed(0)
    tensors = {key: torch.randn(3, 4, generator=generator) for key in ("moving", "frozen")}
    grads = [{key: torch.randn(3, 4, generator=generator) for key in tensors} for _ in range(4)]

    both, alone = Weights(tensors, everything), Weights({"frozen": tensors["frozen"]}, everything)
    spec = OptimSpec(name=name)  # type: ignore[arg-type]
    optimizer, other = build_optimizer(spec, both), build_optimizer(spec, alone)
    for i, grad in enumerate(grads):
        seen = dict(grad) if i >= 2 else {"moving": grad["moving"]}
        both.move(optimizer, seen, 0.1, 0.01)
        if i < 2:
            assert torch.equal(both.values()["frozen"], tensors["frozen"])
        else:
            alone.move(other, {"frozen": grad["frozen"]}, 0.1, 0.01)
    assert torch.equal(both.values()["frozen"], alone.values()["frozen"])
    assert not torch.equal(both.values()["frozen"], tensors["frozen"])


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars", "larc"])
def test_state_is_tensors_and_going_on_from_it_is_bit_exact(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    tensors = {"weight": torch.randn(5, 7, generator=generator), "bias": torch.randn(5, generator=generator)}
    grads = [{key: torch.randn(value.shape, generator=generator) for key, value in tensors.items()} for _ in range(5)]
    spec = OptimSpec(name=name, nesterov=name == "sgd")  # type: ignore[arg-type]

    whole = Weights(tensors, matrix)
    optimizer = build_optimizer(spec, whole)
    for grad in grads[:2]:
        whole.move(optimizer, grad, 0.1, 0.05)

    again = Weights({key: torch.zeros_like(value) for key, value in tensors.items()}, matrix)
    resumed = build_optimizer(spec, again)
    for mine, theirs in zip(optimizer.param_groups, resumed.param_groups, strict=True):
        for p, q in zip(mine["params"], theirs["params"], strict=True):
            q.data.copy_(p.data)
            assert optimizer.state[p] and all(isinstance(value, Tensor) for value in optimizer.state[p].values())
            resumed.state[q] = copy.deepcopy(optimizer.state[p])
    for grad in grads[2:]:
        whole.move(optimizer, grad, 0.1, 0.05)
        again.move(resumed, grad, 0.1, 0.05)
    assert all(torch.equal(whole.values()[key], again.values()[key]) for key in tensors)


@pytest.mark.parametrize("decay", [0.0, 0.02])
@pytest.mark.parametrize("name", ["lars", "larc"])
def test_gradients_are_read_alone(name: str, decay: float) -> None:
    """Updates are scaled in place, which are no gradients even where nothing decays."""
    grads = {"weight": torch.full((3, 2), 0.25), "bias": torch.full((3,), 0.5)}
    method = Weights({key: torch.ones_like(g) for key, g in grads.items()}, matrix)
    method.move(build_optimizer(OptimSpec(name=name), method), grads, 1.0, decay)  # type: ignore[arg-type]
    for p, gradient in zip(method.list, grads.values(), strict=True):
        assert torch.equal(p.grad, gradient) and (p < 1).all()


def test_groups_keep_what_the_loop_reads() -> None:
    class Several(Weights):
        def groups(self) -> list[Group]:
            head = Group([("head", self.list[1])], scheduled=False, lr_scale=0.5)
            return [Group([("body", self.list[0])]), head, Group(decay=False)]

    method = Several({"body": torch.ones(2, 2), "head": torch.ones(2)}, everything)
    groups = build_optimizer(OptimSpec(), method).param_groups
    assert [g["names"] for g in groups] == [["body"], ["head"]], "a group of nothing is left out"
    assert [(g["decay"], g["adapt"], g["scheduled"], g["lr_scale"]) for g in groups] == [
        (True, True, True, 1.0),
        (True, True, False, 0.5),
    ]


def test_sgd_takes_momentum_and_nesterov_from_the_spec() -> None:
    method = Weights({"w": torch.zeros(1)}, everything)
    optimizer = build_optimizer(OptimSpec(name="sgd", momentum=0.5, nesterov=True), method)
    method.move(optimizer, {"w": torch.ones(1)}, 1.0, 0.0)
    assert method.values()["w"].item() == -1.5  # g + 0.5 m with m = g


def linear_stack(grads: dict[str, Tensor]) -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)).double()
    for name, p in net.named_parameters():
        p.grad = grads[name].clone()
    return net


def test_clipping_each_tensor_is_dinos() -> None:
    golden = load_file(GOLDEN / "dino_clip_gradients.safetensors")
    before, after = part(golden, "grad_before/"), part(golden, "grad_after/")
    assert sum(torch.equal(before[k], after[k]) for k in before) in range(1, 4), "some are short, some too long"
    net = linear_stack(before)
    norm = clip_gradients(net, 0.5, each=True)
    torch.testing.assert_close({k: p.grad for k, p in net.named_parameters()}, after, rtol=1e-12, atol=0)
    torch.testing.assert_close(norm, golden["norms"].norm(), rtol=1e-12, atol=0)


def test_clipping_all_together_is_torchs() -> None:
    before = part(load_file(GOLDEN / "dino_clip_gradients.safetensors"), "grad_before/")
    for limit in (0.5, 1e6):
        ours, theirs = linear_stack(before), linear_stack(before)
        norm = clip_gradients(ours, limit)
        torch.testing.assert_close(norm, torch.nn.utils.clip_grad_norm_(theirs.parameters(), limit))
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-12, atol=0)


def test_weight_decay_of_a_group_that_does_not_decay_stays_zero() -> None:
    """A vector neither shrinks nor adapts: w - lr g, to the bit."""
    method = Weights({"bias": torch.full((3,), 2.0)}, matrix)
    optimizer = build_optimizer(OptimSpec(name="lars"), method)
    assert isinstance(optimizer, LARS)
    method.move(optimizer, {"bias": torch.full((3,), 0.25)}, 1.0, 0.5)
    assert method.values()["bias"].tolist() == [1.75] * 3
