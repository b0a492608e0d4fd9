"""What has to be computed in full precision, also under autocast."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor

P = ParamSpec("P")


def full_precision(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Wrap ``function`` to run outside autocast, with half-precision tensors raised to float32.

    For what loses its meaning in half precision: softmax at a low temperature, sums over a batch, Sinkhorn.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        tensors = [a for a in args if isinstance(a, Tensor)]
        half = (torch.float16, torch.bfloat16)
        raised: list[object] = [a.float() if isinstance(a, Tensor) and a.dtype in half else a for a in args]
        with torch.autocast(tensors[0].device.type, enabled=False):
            return function(*raised, **kwargs)  # type: ignore[arg-type]

    return run


@full_precision
def unit(x: Tensor) -> Tensor:
    """Return ``x`` scaled to length one along its last axis."""
    return F.normalize(x, dim=-1)
