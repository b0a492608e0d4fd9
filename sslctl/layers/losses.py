"""What objectives measure: contrast among images and queues, agreement of vectors and of distributions, over pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime import distributed
from .precision import full_precision


def mean_of_others(pairs: Tensor) -> Tensor:
    """Return the mean of ``pairs`` (T, V) of target views and views, without a view with itself.

    The targets are the first T of the V views.
    """
    targets, views = pairs.shape
    itself = torch.eye(targets, views, dtype=torch.bool, device=pairs.device)
    return pairs.masked_fill(itself, 0).sum() / (targets * (views - 1))


def view_pairs(targets: int, views: int) -> list[tuple[int, int]]:
    """Return the pairs of a global view (the first ``targets`` of the views) and another view, once each."""
    return [(a, b) for a in range(targets) for b in range(a + 1, views)]


@full_precision
def queue_contrast(keys: Tensor, queries: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of finding the image's key beside a ``queue`` (K, D): (T, V).

    -log( exp q.k / (exp q.k + sum over the queue of exp q.u) ), with ``keys`` k (T, B, D); mean over the batch.
    """
    own = torch.einsum("tbd,vbd->tvb", keys, queries) / temperature
    others = (queries @ queue.T / temperature).logsumexp(-1)  # (V, B)
    return (torch.logaddexp(own, others) - own).mean(-1)


@full_precision
def info_nce(keys: Tensor, queries: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of finding the image's key among those of all images: (T, V).

    ``keys`` (T, B, D) of a view are gathered from all processes, with gradient; mean over the batch, of a process.
    """
    every = distributed.gather(keys.transpose(0, 1))  # (N, T, D), N images on all processes
    logits = torch.einsum("vbd,ntd->tvbn", queries, every) / temperature
    image = torch.arange(queries.shape[1], device=queries.device)
    own = logits[:, :, image, image + distributed.rank() * len(image)]  # (T, V, B)
    return (logits.logsumexp(-1) - own).mean(-1)


@full_precision
def info_nce_below(predictions: Tensor, targets: Tensor, k: int) -> Tensor:
    """Return the mean cross-entropy of finding the patch ``k`` rows below among all patches of all images.

    ``predictions`` and ``targets`` are (B, rows, columns, D); rows that have none ``k`` below predict nothing.
    """
    b, rows, columns, _ = targets.shape
    every = distributed.gather(targets.contiguous()).flatten(0, 2)  # (N * rows * columns, D)
    logits = predictions[:, :-k].flatten(0, 2) @ every.T
    place = torch.arange(b * rows * columns, device=logits.device).view(b, rows, columns)
    own = place[:, k:].flatten() + distributed.rank() * place.numel()
    return F.cross_entropy(logits, own)


@full_precision
def mean_cosines(targets: Tensor, predictions: Tensor) -> Tensor:
    """Return cosine similarities of (T, B, D) and (V, B, D), mean over the batch: (T, V)."""
    z, p = F.normalize(targets, dim=-1), F.normalize(predictions, dim=-1)
    return torch.einsum("tbd,vbd->tv", z, p) / z.shape[1]


@full_precision
def swapped_cross_entropy(targets: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Return the mean cross-entropy of predictions against ``targets`` over pairs of different views.

    ``logits`` are (V, B, K); ``targets`` are distributions, (T, B, K), for the first T of the V views. A row's
    cross-entropy is logsumexp(s) - <q, s>, so that no log-probabilities of the size of the logits are kept.
    """
    s = logits / temperature
    agreement = torch.einsum("tbk,vbk->tv", targets, s) / s.shape[1]
    pairs = s.logsumexp(-1).mean(-1) - agreement  # (T, V)
    return mean_of_others(pairs)


def squared_products(x: Tensor, y: Tensor) -> Tensor:
    """Return the sum of squares of ``x.T @ y``, (D, D), over the rows (B, D) of all processes.

    Of fewer rows N than numbers D it is the sum of ``x @ x.T`` times ``y @ y.T``, (N, N) each, and D x D is not built.
    """
    if distributed.world_size() * len(x) >= x.shape[1]:
        return distributed.total(x.T @ y).square().sum()
    rows = distributed.gather(x)
    others = rows if y is x else distributed.gather(y)
    return ((rows @ rows.T) * (others @ others.T)).sum()
