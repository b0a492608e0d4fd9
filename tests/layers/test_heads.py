"""Heads: built as the papers say, and a weight-normed layer equal to that of torch."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from sslctl.layers.heads import WeightNormed, mlp

from .drawing import randn


def shape_of(head: nn.Sequential) -> list[str]:
    """One word a layer: L+/L- with or without bias, BN with scale and shift, bn without, and activations."""
    words = []
    for layer in head:
        if isinstance(layer, nn.Linear):
            words.append(f"L{layer.in_features}>{layer.out_features}{'+' if layer.bias is not None else '-'}")
        elif isinstance(layer, nn.BatchNorm1d):
            words.append("BN" if layer.affine else "bn")
        else:
            words.append(type(layer).__name__)
    return words


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (mlp(4, 5, 6, bias=True), "L4>5+ BN ReLU L5>6+"),  # SwAV
        (mlp(4, 5, 6, bias=True, last_bias=False), "L4>5+ BN ReLU L5>6-"),  # BYOL
        (mlp(4, 5, 6, last_norm=True), "L4>5- BN ReLU L5>6- bn"),  # MoCo v3
        (mlp(4, 5, 6, last_bias=False), "L4>5- BN ReLU L5>6-"),  # Barlow Twins
        (mlp(4, 5, 6, 7, last_norm=True, last_bias=True), "L4>5- BN ReLU L5>6- BN ReLU L6>7+ bn"),  # SimSiam
        (mlp(4, 5, 6, norm=None, bias=True, activation=nn.GELU), "L4>5+ GELU L5>6+"),  # DINO
        (mlp(4, 6), "L4>6+"),  # MoCo v1
    ],
)
def test_heads_are_built_as_asked(head: nn.Sequential, words: str) -> None:
    assert shape_of(head) == words.split()


def test_weight_normed_is_torchs_and_copies() -> None:
    layer = WeightNormed(4, 6).double()
    assert layer.weight_v.abs().max() <= 1 / math.sqrt(4), "as a Linear begins"
    torch.nn.init.uniform_(layer.weight_g, 0.5, 2.0)
    theirs = torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 6, bias=False).double())
    theirs.parametrizations.weight.original0.data.copy_(layer.weight_g.data)
    theirs.parametrizations.weight.original1.data.copy_(layer.weight_v.data)
    x = randn(3, 4)
    torch.testing.assert_close(layer(x), theirs(x), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(copy.deepcopy(layer)(x), layer(x), rtol=0, atol=0)
    assert set(layer.state_dict()) == {"weight_g", "weight_v"}
