"""Functions in full precision leave autocast and raise halves."""

from __future__ import annotations

import torch
from torch import Tensor

from sslctl.layers.precision import full_precision, unit

from .drawing import randn


def test_full_precision_leaves_autocast_and_raises_halves() -> None:
    @full_precision
    def product(x: Tensor, y: Tensor) -> Tensor:
        return x @ y

    x = randn(4, 4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        assert product(x, x).dtype == torch.float32
        assert product(x.bfloat16(), x.bfloat16()).dtype == torch.float32
        assert (x @ x).dtype == torch.bfloat16
    assert product(x.double(), x.double()).dtype == torch.float64


def test_unit_rows_are_of_length_one_also_from_halves() -> None:
    x = 100 * randn(4, 3, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        z = unit(x.bfloat16())
    assert z.dtype == torch.float32
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(4))
    torch.testing.assert_close(z * x.bfloat16().float().norm(dim=-1, keepdim=True), x.bfloat16().float())
