"""Other tools' files for tests: the official names and shapes, filled with numbers that share one small storage."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LAYOUTS = Path(__file__).parents[2] / "golden" / "layouts"
POOL = 2_400_000
SCALE = re.compile(r"(norm\w*|bn\d?|downsample\.1|fc\.1)\.weight$|running_var$|gamma$")

Tree = dict[str, Any]


class Filler:
    """Numbers by name: weights of a trained net's size, positive where norms scale; the same tensor never twice.

    A file of them is small: all are windows on one storage, and the rows of a tensor larger than it are the same.
    """

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(0)
        self.weights = 0.03 * torch.randn(POOL, generator=g)
        self.scales = 0.5 + torch.rand(20_000, generator=g)
        self.place = 0

    def __call__(self, name: str, shape: list[int], dtype: str) -> Tensor:
        if dtype != "float32":
            return torch.full(shape, 7, dtype=torch.int64)
        scales = SCALE.search(name) and len(shape) == 1 and shape[0] < len(self.scales)
        pool = self.scales if scales else self.weights
        own = shape if math.prod(shape) < len(pool) else [1, *shape[1:]]
        self.place = (self.place + 4099) % (len(pool) - math.prod(own))
        return pool[self.place :][: math.prod(own)].view(own).expand(shape)


def filled(tree: Tree, fill: Any) -> Tree:
    """``tree`` of name -> [shape, dtype] with tensors of ``fill``."""
    return {k: filled(v, fill) if isinstance(v, dict) else fill(k, *v) for k, v in tree.items()}


def nothing(name: str, shape: list[int], dtype: str) -> Tensor:
    """Zeros that take no room, for files of which only names and shapes matter."""
    return torch.zeros((), dtype=getattr(torch, dtype)).expand(shape)


def layout(name: str) -> Tree:
    """The official names and shapes of a file, nested as in it."""
    found = json.loads((LAYOUTS / f"{name}.json").read_text())
    assert isinstance(found, dict)
    return found


def innermost(tree: Tree, nest: str) -> Tree:
    """The dictionary at the dotted path ``nest``."""
    for key in filter(None, nest.split(".")):
        tree = tree[key]
    return tree


def saved(tree: Tree, path: Path) -> Path:
    torch.save(tree, path)
    return path
