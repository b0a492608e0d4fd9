"""A file of torch.save holds plain tensors and values, and none of the storage that they are windows of."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from sslctl.exchange.exports.pth import write_pth


def test_tensors_come_back_by_the_safe_reader(tmp_path: Path) -> None:
    state = {"a": nn.Parameter(torch.arange(3.0)), "b": torch.arange(1_000_000.0)[:2]}
    write_pth(tmp_path / "plain.pth", state)
    held = torch.load(tmp_path / "plain.pth", weights_only=True)
    assert held.keys() == {"a", "b"} and torch.equal(held["a"], state["a"]) and torch.equal(held["b"], state["b"])
    assert type(held["a"]) is torch.Tensor and not held["a"].requires_grad
    assert (tmp_path / "plain.pth").stat().st_size < 10_000, "not the whole storage that b is a part of"


def test_values_beside_the_tensors_put_these_under_model(tmp_path: Path) -> None:
    write_pth(tmp_path / "more.pth", {"a": torch.ones(1)}, author="sslctl", flag=True)
    held = torch.load(tmp_path / "more.pth", weights_only=True)
    assert held == {"model": {"a": torch.ones(1)}, "author": "sslctl", "flag": True}
