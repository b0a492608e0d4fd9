"""Jigsaw's orders: permutations that lie far apart, chosen greedily and always alike."""

from __future__ import annotations

import functools
import itertools

import numpy as np
from numpy.typing import NDArray

from ..errors import SpecError


@functools.cache
def distant_permutations(items: int, count: int) -> NDArray[np.uint8]:
    """``count`` orders of 0 … items - 1, far apart: (count, items), always the same.

    The identity first, then greedily the order that differs from its nearest in the set at most places, in a tie from
    all of them, in a tie the first one. SpecError where there are not that many.
    """
    flat = itertools.chain.from_iterable(itertools.permutations(range(items)))
    every = np.fromiter(flat, np.uint8).reshape(-1, items)
    if count > len(every):
        raise SpecError(f"method.permutations {count}: {items} tiles have only {len(every)} orders", "fewer")
    chosen, nearest, total = [0], np.full(len(every), items), np.zeros(len(every), np.int64)
    while len(chosen) < count:
        distance = (every != every[chosen[-1]]).sum(1)
        nearest, total = np.minimum(nearest, distance), total + distance
        chosen.append(int(np.argmax(nearest * (items * count + 1) + total)))
    return every[chosen]
