"""Comparison with the authors' numbers: golden tensors by prefix, and equality within a share of the largest number."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslctl.methods.base import Method

from ..stubs import StubBackbone

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def same(value: Tensor | None, expected: Tensor, name: str = "", tolerance: float | None = None) -> None:
    """Equal within ``tolerance`` (by the precision) of the largest number in ``expected``."""
    assert value is not None, name
    share = TOLERANCE[value.dtype] if tolerance is None else tolerance
    atol = share * max(float(expected.abs().max()), 1e-3)
    torch.testing.assert_close(value.detach(), expected, rtol=0, atol=atol, msg=lambda m: f"{name}: {m}")


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


class Tiny(StubBackbone):
    """The backbone of the authors' modules in the golden traces: Linear 12 -> 10, batch norm, ReLU."""

    dim = 10

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(12, 10)
        self.bn = nn.BatchNorm1d(10)

    def pool(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.lin(x)).relu()
        return out


def load(net: nn.Module, tensors: dict[str, Tensor], head: str) -> None:
    """Put the authors' state of a whole encoder, whose head they call ``head``, into an Encoder on Tiny."""
    names = net.state_dict()
    net.load_state_dict({name: tensors[official(name, tensors, head)] for name in names})


def official(name: str, tensors: dict[str, Any], head: str) -> str:
    """``backbone.lin.bias`` -> ``lin.bias``, ``head.0.bias`` -> ``fc.0.bias``, or ``fc.bias`` if a Linear."""
    if name.startswith("backbone."):
        return name.removeprefix("backbone.")
    found = name.replace("head.", f"{head}.", 1)
    return found if found in tensors else found.replace(f"{head}.0.", f"{head}.", 1)


def same_gradients(method: Method[Any], expected: dict[str, Tensor], names: dict[str, str], where: str) -> None:
    """Gradients of ``method`` against the authors', by ``names``: our name -> theirs; every one of theirs is compared.

    Before a batch norm a bias has no gradient but rounding, so each is measured against the largest of all.
    """
    own = {key: p.grad for key, p in method.named_parameters() if p.grad is not None}
    assert {names[key] for key in own} == set(expected), where
    largest = max(float(g.abs().max()) for g in expected.values())
    for key, gradient in own.items():
        atol = TOLERANCE[gradient.dtype] * largest
        torch.testing.assert_close(
            gradient, expected[names[key]], rtol=0, atol=atol, msg=lambda m, key=key: f"{where} {key}: {m}"
        )
