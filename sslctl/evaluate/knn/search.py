"""Nearest rows by cosine similarity: exact, in bounded memory, each similarity computed and read once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ...runtime.device import fast_matmul
from .screen import Screen

BUDGET = 96 << 20  # bytes beside the features: similarities, and the candidates among them
BLOCK = 32  # neighbours are looked for only in the blocks with the largest maxima
ROWS = 256  # fewer at a time would leave the matrix product waiting for memory

Look = Callable[[int, Tensor], None]


def neighbours(
    train: Tensor, test: Tensor, k: int, budget: int = BUDGET, *, alone: bool = False, look: Look | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield cosine similarity and position of the ``k`` nearest rows of ``train`` (n, d) for ``test`` (m, d).

    Yields (b, k), nearest first, for consecutive parts of ``test``. Beside the features, which are not copied, at most
    ``budget`` bytes are held (or one row of what is looked at; or, for a large k, ROWS times a few k similarities).
    ``alone``: ``test`` is ``train``, and no row is a neighbour of itself. ``look`` gets the position of a part's first
    row and all its similarities (b, n) once they are done with; it may write to them.
    """
    screen = None if look is not None else Screen.of(train, k, budget)
    start = 0
    while screen is not None and start < len(test):
        queries = F.normalize(test[start : start + len(screen.room)], dim=1)
        found = screen.nearest(queries, start if alone else None)
        if found is None:  # the rest is likely as close together
            screen = None
        else:
            yield found
            start += len(queries)
    yield from _computed(train, test, start, k, budget, alone, look)


def _computed(
    train: Tensor, test: Tensor, start: int, k: int, budget: int, alone: bool, look: Look | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Return ``neighbours`` for the rows of ``test`` from ``start`` on, by all similarities in full precision."""
    n = len(train)
    rows, columns = _tile(n, len(test) - start, k, budget // train.element_size(), whole=look is not None)
    buffer = train.new_empty(rows, -(-columns // BLOCK) * BLOCK)
    scale = 1 / torch.linalg.vector_norm(train, dim=1).clamp_min(1e-12)  # (n,); a normalised copy would cost memory
    for first_row in range(start, len(test), rows):
        queries = F.normalize(test[first_row : first_row + rows], dim=1)
        b, found = len(queries), []
        for first in range(0, n, columns):
            block = train[first : first + columns]
            similarity = buffer[:b, : len(block)]
            with fast_matmul(train):
                torch.mm(queries, block.T, out=similarity)  # (b, c)
            similarity *= scale[first : first + columns]
            buffer[:b, len(block) :] = -torch.inf
            if alone:
                similarity.diagonal(first_row - first).fill_(-torch.inf)
            values, index = largest(buffer[:b], min(k, len(block)))
            found.append((values, index + first))
        if look is not None:
            look(first_row, buffer[:b, :n])
        yield _merged(found, k)


def largest(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return ``x.topk(k, 1)`` for contiguous (b, n), n a multiple of BLOCK; faster on long rows.

    The k largest values lie in the k blocks with the largest maxima, and the smallest of these is exceeded by few.
    """
    b, n = x.shape
    blocks = n // BLOCK
    if blocks < 4 * k:
        return torch.topk(x, k, 1)
    rows = x.view(b * blocks, BLOCK)
    maxima, best = rows.amax(1).view(b, blocks).topk(k, 1, sorted=False)  # (b, k)
    first = torch.arange(b, device=x.device)[:, None] * blocks
    values = rows.index_select(0, (best + first).flatten()).view(b, k * BLOCK)
    row, at = (values >= maxima.amin(1, keepdim=True)).nonzero(as_tuple=True)
    counts = torch.bincount(row, minlength=b)
    place = torch.arange(len(row), device=x.device) - (counts.cumsum(0) - counts)[row]
    few = x.new_full((b, int(counts.max())), -torch.inf)
    few[row, place] = values[row, at]
    where = torch.zeros(few.shape, dtype=torch.int64, device=x.device)
    where[row, place] = at
    top, at = few.topk(k, 1)
    at = where.gather(1, at)
    return top, best.gather(1, at // BLOCK) * BLOCK + at % BLOCK


def _merged(found: list[tuple[Tensor, Tensor]], k: int) -> tuple[Tensor, Tensor]:
    if len(found) == 1:
        return found[0]
    values, index = (torch.cat(part, 1) for part in zip(*found, strict=True))
    top, at = values.topk(k, 1)
    return top, index.gather(1, at)


def _tile(n: int, m: int, k: int, numbers: int, whole: bool) -> tuple[int, int]:
    """Return the rows and columns of similarities that, with their candidates, are at most ``numbers``.

    All columns, unless that leaves fewer than ROWS rows and they need not be ``whole``.
    """
    candidates = k * (BLOCK + 8)
    rows = numbers // (n + n // BLOCK + candidates)
    if whole or rows >= min(m, ROWS):
        return max(1, min(m, rows)), n
    rows = min(m, ROWS)
    return rows, min(n, max(4 * k, numbers // rows - candidates))
