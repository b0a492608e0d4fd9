"""Weighted nearest-neighbour vote: every k and temperature from one pass over the similarities, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SpecError
from .features import Features, check_pair
from .score import Score, ranks, score

BUDGET = 64 << 20  # bytes of similarities held at a time
BLOCK = 64  # neighbours are looked for only in the blocks with the largest maxima


def knn(
    train: Features, test: Features, ks: Sequence[int], temperatures: Sequence[float], budget: int = BUDGET
) -> list[Score]:
    """Scores of the weighted vote of InstDisc and DINO, one for each k and temperature, in the order given.

    Cosine similarity s; each of the k nearest training images votes for its class with weight exp(s / temperature)
    (``knn_classifier`` in facebookresearch/dino, eval_knn.py; Wu et al. 2018, section 3.4). As there, top-5 looks at
    the first min(5, k) classes. A k above the number of training images is lowered to it, with a note.
    Raises DataError where the sets do not go together, SpecError for a k or temperature that is none.
    """
    check_pair(train, test)
    if not ks or not temperatures or min(ks) < 1 or not min(temperatures) > 0:
        raise SpecError(
            f"knn: k {list(ks)} and temperature {list(temperatures)} must be positive", "for example --k 20"
        )
    notes = tuple(f"k {k} is more than the {len(train.x)} training images; all vote" for k in ks if k > len(train.x))
    classes = len(train.classes)
    held = {k: min(k, len(train.x)) for k in ks}
    found: dict[tuple[int, float], list[Tensor]] = {(k, t): [] for k in ks for t in temperatures}
    start = 0
    for similarity, index in neighbours(train.x, test.x, max(held.values()), budget):
        own = test.labels[start : start + len(index)]
        start += len(index)
        for k, t in found:
            votes = vote(similarity[:, : held[k]], train.labels[index[:, : held[k]]], classes, t)
            found[k, t].append(ranks(votes, own))
    return [
        score(torch.cat(rank), len(train.x), classes, {"name": "knn", "k": held[k], "temperature": t}, held[k], notes)
        for (k, t), rank in found.items()
    ]


def vote(similarity: Tensor, labels: Tensor, classes: int, temperature: float) -> Tensor:
    """Votes for each class: (b, k) similarities, the nearest first, and labels of neighbours -> (b, classes).

    Weights are relative to the nearest neighbour's, so that no temperature overflows; the order is the same.
    """
    weight = ((similarity - similarity[:, :1]) / temperature).exp()
    return similarity.new_zeros(len(similarity), classes).scatter_add_(1, labels, weight)


def neighbours(train: Tensor, test: Tensor, k: int, budget: int = BUDGET) -> Iterator[tuple[Tensor, Tensor]]:
    """Cosine similarity and position of the ``k`` nearest rows of ``train`` (n, d) for the rows of ``test`` (m, d).

    Yields (b, k), nearest first, for consecutive parts of ``test`` so long that b x n similarities fit ``budget``
    bytes (at least one row). The feature matrices are normalised copies; nothing else grows with n or m.
    """
    train, test = F.normalize(train, dim=1), F.normalize(test, dim=1)
    rows = max(1, min(len(test), budget // (len(train) * train.element_size())))
    buffer = train.new_empty(rows, len(train))
    for part in torch.split(test, rows):
        similarity = torch.mm(part, train.T, out=buffer[: len(part)])  # (b, n)
        yield _largest(similarity, k)


def _largest(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``x.topk(k, 1)`` for (b, n), faster on long rows.

    The k largest values lie in the k blocks with the largest maxima, so only these are searched.
    """
    b, n = x.shape
    blocks = n // BLOCK
    if blocks < 4 * k:
        return torch.topk(x, k, 1)
    inner = x[:, : blocks * BLOCK].view(b, blocks, BLOCK)
    best = inner.amax(2).topk(k, 1, sorted=False)[1]  # (b, k)
    values = inner.gather(1, best[:, :, None].expand(-1, -1, BLOCK)).flatten(1)
    index = (best[:, :, None] * BLOCK + torch.arange(BLOCK, device=x.device)).flatten(1)
    rest = torch.arange(blocks * BLOCK, n, device=x.device).expand(b, -1)
    values, index = torch.cat([values, x[:, blocks * BLOCK :]], 1), torch.cat([index, rest], 1)
    top, at = values.topk(k, 1)
    return top, index.gather(1, at)
