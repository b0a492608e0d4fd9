"""Embeddings put into clusters: Sinkhorn's balanced assignments, spherical k-means, and signs of their collapse."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime import distributed
from .precision import full_precision, unit

CHUNK = 4096  # rows of k-means at a time


@torch.no_grad()
def target_logs(q: Tensor) -> dict[str, Tensor]:
    """Return what tells learning from collapse in target distributions ``q`` (..., K).

    ``target_entropy``: their mean entropy as a share of ln K; 0 is one-hot, 1 uniform. ``target_information``: the
    entropy of their mean less that mean entropy, in nats; 0 where all images have the same target, be it uniform or
    one-hot.
    """
    entropy = torch.special.entr(q).sum(-1).mean()
    total = torch.special.entr(q.flatten(0, -2).mean(0)).sum()
    return {"target_entropy": entropy / math.log(q.shape[-1]), "target_information": total - entropy}


@torch.no_grad()
@full_precision
def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Assign B samples softly to K prototypes, used equally: (B, K) -> (B, K), rows sum to one.

    SwAV's ``distributed_sinkhorn`` (facebookresearch/swav, main_swav.py). The largest score is taken off first, which
    cancels in exact arithmetic and keeps exp within range.
    """
    largest = scores.max()
    if distributed.world_size() > 1:
        torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    q = torch.exp((scores - largest) / epsilon)  # (B, K)
    samples = len(q) * distributed.world_size()
    q = q / distributed.total(q.sum())
    for _ in range(iterations):
        q = q / (distributed.total(q.sum(0)) * q.shape[1])
        q = q / (q.sum(1, keepdim=True) * samples)
    return q * samples


@torch.no_grad()
def kmeans(x: Tensor, centroids: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Cluster ``x`` (n, D) by spherical k-means from ``centroids`` (K, D); return centroids and nearest (n,).

    A cluster that has lost its last row keeps its centroid. Sums are matrix products, which repeat to the bit.
    """
    for _ in range(iterations):
        sums, counts = torch.zeros_like(centroids), centroids.new_zeros(len(centroids), 1)
        for part in torch.split(x, CHUNK):
            member = F.one_hot((part @ centroids.T).argmax(1), len(centroids)).to(x.dtype)  # (n, K)
            sums += member.T @ part
            counts += member.sum(0)[:, None]
        centroids = unit(torch.where(counts > 0, sums / counts.clamp(min=1), centroids))
    return centroids, torch.cat([(part @ centroids.T).argmax(1) for part in torch.split(x, CHUNK)])
