"""Random numbers by counter: a pure function of (seed, epoch, index, view, slot), with no generator to save or share."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Word = TypeVar("Word", int, NDArray[np.uint64])  # 64 bits: one number, or an array of them

_STEP = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd: consecutive counters lie far apart
_ALL = (1 << 64) - 1


def _mix(x: Word) -> Word:
    """splitmix64's finaliser: a bijection of 64 bits in which every bit in moves half the bits out."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _ALL
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _ALL
    return x ^ x >> 31


def _fold(state: int | NDArray[np.uint64], value: ArrayLike) -> int | NDArray[np.uint64]:
    """The state after one more word of the key; plain integers stay plain, an array's overhead costs more than they do."""
    start = (state * 3 + _STEP) & _ALL
    if np.ndim(value) == 0 and isinstance(start, int):
        return _mix((start + int(value)) & _ALL)  # type: ignore[arg-type]
    words = np.atleast_1d(np.asarray(value, np.int64)).view(np.uint64)
    return _mix(words + np.uint64(start) if isinstance(start, int) else words + start)


def uniforms(
    seed: ArrayLike, epoch: ArrayLike, index: ArrayLike, view: ArrayLike, n: int, first: int = 0
) -> NDArray[np.float64]:
    """``n`` numbers, uniform in [0, 1), for every (seed, epoch, index, view): slots ``first`` … ``first + n - 1``.

    The four are integers or integer arrays that broadcast together; the result has their shape, and ``n`` last. A
    number depends on its own key and slot only, so batches, workers and devices change nothing.

    A key's numbers are those of splitmix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
    generators"); the state they start from is the key, folded in word by word through the same bijection.
    """
    state: int | NDArray[np.uint64] = 0
    for word in (seed, epoch, index, view):
        state = _fold(state, word)
    counters = np.arange(first + 1, first + n + 1, dtype=np.uint64) * np.uint64(_STEP)
    bits = _mix(np.asarray(state, np.uint64)[..., None] + counters) >> np.uint64(11)
    return bits * 2.0**-53
