"""Random numbers by counter: a pure function of (seed, epoch, index, view, slot); no generator to save or share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_STEP = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd: consecutive counters lie far apart
_ALL = (1 << 64) - 1


def uniforms(
    seed: ArrayLike, epoch: ArrayLike, index: ArrayLike, view: ArrayLike, n: int, first: int = 0
) -> NDArray[np.float64]:
    """Draw ``n`` numbers in [0, 1) for every (seed, epoch, index, view), slots ``first`` to ``first + n - 1``.

    The four are integers or integer arrays that broadcast together; the result has their shape, and ``n`` last. A
    number depends on its own key and slot only, so batches, workers and devices change nothing.

    A key's numbers are those of splitmix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
    generators"); the state they start from is the key, folded in word by word through the same bijection.
    """
    state: Any = 0  # stays a plain int while words are: for one image, numpy's overhead would cost more than the rest
    for word in (seed, epoch, index, view):
        state = mix((state * 3 + _STEP & _ALL) + _bits(word) & _ALL)
    counters = np.arange(first + 1, first + n + 1, dtype=np.uint64) * np.uint64(_STEP)
    high_bits: NDArray[np.uint64] = mix(np.asarray(state, np.uint64)[..., None] + counters) >> np.uint64(11)
    return high_bits.astype(np.float64) * 2.0**-53


def mix(x: Any) -> Any:
    """Apply splitmix64's finaliser to an int or a uint64 array, a bijection that changes half of the bits."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _ALL
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _ALL
    return x ^ x >> 31


def _bits(value: ArrayLike) -> Any:
    numbers = np.asarray(value, np.int64)
    return numbers.view(np.uint64) if numbers.ndim else int(numbers) & _ALL
