"""Nearest rows by products in bfloat16, twice as fast: what their error may hide is computed again in float32."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...runtime.device import cpu_has_bf16

BLOCK = 64  # rows are looked at only in the blocks whose largest similarity may be among the k largest
MOST = 16  # times k candidates of a query; where similarities lie closer together, nothing is saved

_ROUNDING = 2**-8  # of a number to bfloat16, at most, relative to it
_HALF = torch.bfloat16


class Screen(NamedTuple):
    """The rows of ``train`` at unit length in bfloat16, and by how much they may be wrong."""

    train: Tensor  # (n, d)
    half: Tensor  # (n and up to a whole block of zeros, d)
    scale: Tensor  # (n,): 1 / length
    error: float  # the largest distance of a row of ``half`` from what it stands for
    k: int
    room: Tensor  # (b, n of half): for the similarities of b queries, as many as keep to the budget

    @classmethod
    def of(cls, train: Tensor, k: int, budget: int) -> Screen | None:
        """Return a screen for the ``k`` nearest of ``train`` (n, d) within ``budget`` bytes; None if it would not pay.

        It pays where the processor multiplies bfloat16, and where there are many more blocks than neighbours.
        """
        n, d = train.shape
        padded = -(-n // BLOCK) * BLOCK
        for_query = 2 * padded + 3 * k * (2 * BLOCK + 64)  # bytes: similarities, then some k blocks and candidates
        rows = (budget - 2 * padded * d) // for_query
        fits = train.device.type == "cpu" and train.dtype == torch.float32 and cpu_has_bf16()
        if not fits or padded < 2 * k * BLOCK or rows < 128:
            return None
        return cls.made(train, k, rows)

    @classmethod
    def made(cls, train: Tensor, k: int, rows: int) -> Screen:
        scale = 1 / torch.linalg.vector_norm(train, dim=1).clamp_min(1e-12)
        half = train.new_zeros(-(-len(train) // BLOCK) * BLOCK, train.shape[1], dtype=_HALF)
        errors = []
        for start in range(0, len(train), 4096):  # a part at a time: a normalised copy would cost memory
            unit = train[start : start + 4096] * scale[start : start + 4096, None]
            part = half[start : start + len(unit)].copy_(unit)
            errors.append(torch.linalg.vector_norm(unit - part, dim=1).max())
        error = float(torch.stack(errors).max())  # no number where one of them is none
        return cls(train, half, scale, error, k, half.new_empty(rows, len(half)))

    def nearest(self, queries: Tensor, own: int | None = None) -> tuple[Tensor, Tensor] | None:
        """Return cosine similarity (b, k) and position of the nearest rows, nearest first, for unit ``queries`` (b, d).

        ``own``: query i is row ``own`` + i, which is not its neighbour. None where too many rows come into question.
        """
        b, blocks = len(queries), len(self.half) // BLOCK
        rough = queries.to(_HALF)
        similarity = torch.mm(rough, self.half.T, out=self.room[:b])
        if own is not None:
            similarity.diagonal(own).fill_(-torch.inf)
        # Positive bfloat16 numbers are in the order of their bits, and integers compare several times faster.
        bits = similarity.view(torch.int16)
        largest = bits.view(b * blocks, BLOCK).amax(1).view(b, blocks)
        least = self._least(queries, rough, largest)
        if int(least.min()) <= 0:
            return None
        query, block = (largest >= least[:, None]).nonzero(as_tuple=True)
        if len(query) > MOST * self.k * b:
            return None
        inside = bits.view(b * blocks, BLOCK).index_select(0, query * blocks + block)
        which, at = (inside >= least[query, None]).nonzero(as_tuple=True)
        return self._exact(queries, query[which], block[which] * BLOCK + at)

    def _least(self, queries: Tensor, rough: Tensor, largest: Tensor) -> Tensor:
        """Return (b,), bits of bfloat16, below which no rough similarity is among the k nearest.

        |q'x' - qx| <= |q' - q| |x'| + |q| |x' - x| by Cauchy and Schwarz; sums and the result are rounded as well.
        At least k rows are as near, roughly, as the k-th largest of the blocks' maxima: that bounds the k-th
        nearest from below, and the bound once more how far off its rough similarity can be.
        """
        of_query = torch.linalg.vector_norm(queries - rough, dim=1)
        error = of_query * (1 + self.error) + self.error + queries.shape[1] * 2**-23
        kth = largest.topk(self.k, 1, sorted=False)[0].amin(1).view(_HALF).float()
        surely = kth / (1 + _ROUNDING) - error
        least: Tensor = surely * (1 - _ROUNDING) - error
        return least.to(_HALF).view(torch.int16)

    def _exact(self, queries: Tensor, query: Tensor, row: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the k nearest of candidate pairs (c,), sorted by query, by products in float32."""
        b = len(queries)
        counts = torch.bincount(query, minlength=b)
        if int(counts.min()) < self.k or int(counts.max()) > MOST * self.k:  # too few: there are NaNs
            return None
        first = F.pad(counts.cumsum(0), (1, 0))
        with warnings.catch_warnings():
            # That they are in beta; and, of torch before 2.14, that their indices are not checked, which is meant.
            warnings.filterwarnings("ignore", message="Sparse (CSR tensor support is|invariant checks are)")
            wanted = torch.sparse_csr_tensor(
                first, row, queries.new_zeros(len(row)), (b, len(self.train)), check_invariants=False
            )
        # Products of the wanted pairs alone, read where they lie: to gather rows first takes twice as long.
        similarity = torch.sparse.sampled_addmm(wanted, queries, self.train.T, beta=0.0).values() * self.scale[row]
        place = torch.arange(len(row)) - first[query]
        few = queries.new_full((b, int(counts.max())), -torch.inf)
        few[query, place] = similarity
        where = torch.zeros(few.shape, dtype=torch.int64)
        where[query, place] = row
        top, at = few.topk(self.k, 1)
        return top, where.gather(1, at)
