"""An encoder, a backbone with the head that training puts on it, and its passes over many views."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..backbones import Backbone
from ..runtime import distributed
from .batch_norm import NormsInGroups


class Encoder(nn.Module):
    """A backbone and the head that training puts on it: (B, C, H, W) -> (B, D)."""

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.backbone(x).pooled)
        return out


def encode(net: Encoder, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return features (V, B, D) and embeddings (V, B, K) of V views.

    The backbone runs once for each run of views of one size, the head once. So views of one size share the backbone's
    batch-norm statistics and all views the head's, as in SimCLR, SwAV and DINO; ``encode_each`` keeps them apart.
    """
    features: list[Tensor] = []
    start = 0
    for end in range(1, len(views) + 1):
        if end == len(views) or views[end].shape != views[start].shape:
            features.append(net.backbone(torch.cat(list(views[start:end]))).pooled)
            start = end
    h = torch.cat(features)  # (V·B, D)
    z: Tensor = net.head(h)
    return h.view(len(views), -1, h.shape[1]), z.view(len(views), -1, z.shape[1])


def encode_each(net: Encoder, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Encode one view after another: each has batch-norm statistics of its own (BYOL, SimSiam)."""
    h, z = zip(*(encode(net, [view]) for view in views), strict=True)
    return torch.cat(h), torch.cat(z)


def encode_in_groups(net: Encoder, views: Sequence[Tensor], size: int) -> tuple[Tensor, Tensor]:
    """Encode in parts of about ``size`` images with batch-norm statistics of their own, as on many GPUs.

    Views of one size take one pass, in which batch norm alone goes from part to part. Those of several sizes take a
    pass for each part, so that running statistics see all sizes in turn.
    """
    parts = list(zip(*(view.chunk(max(1, len(view) // max(2, size))) for view in views), strict=True))
    if len(parts) == 1 or len({view.shape for view in views}) > 1:
        each = [encode(net, part) for part in parts]
        return torch.cat([h for h, _ in each], 1), torch.cat([z for _, z in each], 1)
    rows = sum(map(len, parts[0]))
    with NormsInGroups(rows):
        h, z = encode(net, [torch.cat([view for part in parts for view in part])])

    def by_view(x: Tensor) -> Tensor:  # (1, V·B, D) -> (V, B, D)
        return torch.cat([part.view(len(views), -1, part.shape[1]) for part in torch.split(x[0], rows)], 1)

    return by_view(h), by_view(z)


def encode_shuffled(net: Encoder, views: Sequence[Tensor], size: int, order: Tensor) -> Tensor:
    """Encode in groups the images of all processes in ``order`` (N,); return embeddings in place."""
    rank, processes = distributed.rank(), distributed.world_size()
    mine = order.chunk(processes)[rank]
    _, z = encode_in_groups(net, [distributed.gather(view)[mine] for view in views], size)
    z = distributed.gather(z.transpose(0, 1))[order.argsort()]  # (N, V, D)
    return z.chunk(processes)[rank].transpose(0, 1)
