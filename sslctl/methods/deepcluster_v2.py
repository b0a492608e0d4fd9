"""DeepCluster-v2: predict the cluster of an image, found by k-means over a memory of the set (Caron et al. 2020)."""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ..errors import SpecError
from ..layers.clusters import kmeans
from ..layers.encoder import Encoder, encode
from ..layers.heads import mlp
from ..layers.precision import full_precision, unit
from ..runtime import distributed
from ..runtime.seeding import generator
from ..schedule import Step
from ..spec.schema import Data, Spec
from .base import CLUSTERING, Chance, Context, Group, Method, Output, Params, Views
from .swav import SwAV

if TYPE_CHECKING:
    from ..backbones import Backbone

UNKNOWN = -100


class DeepClusterV2Params(Params):
    """Hyper-parameters of DeepCluster-v2; defaults of facebookresearch/swav, main_deepclusterv2.py."""

    prototypes: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        (3000, 3000, 3000), min_length=1, description="clusters, for each clustering"
    )
    hidden: int = Field(2048, ge=1, description="hidden width of the head")
    out: int = Field(128, ge=1, description="width of the embedding")
    temperature: float = Field(0.1, gt=0, description="temperature of the predictions")
    iterations: int = Field(10, ge=1, description="iterations of k-means at the start of an epoch")


class DeepClusterV2(Method[DeepClusterV2Params]):
    """Deep Clustering for Unsupervised Learning of Visual Features, as improved beside SwAV (its appendix C).

    A memory holds the last embeddings of every image's global views. When an epoch begins, spherical k-means groups
    it, each clustering on the memory of the next global view in turn; all views of an image, local ones too, are then
    to be closest to its centroid. Centroids take no gradient. The first epoch only fills the memory: the loss is zero
    and nothing moves (the authors run through the set once before theirs).
    """

    Params = DeepClusterV2Params
    views = SwAV.views
    recipe = SwAV.recipe

    memory: Tensor
    assignments: Tensor

    def __init__(self, params: DeepClusterV2Params, backbone: Backbone, context: Context) -> None:
        super().__init__(params)
        if max(params.prototypes) > context.images // context.batch_size * context.batch_size:
            raise SpecError(
                f"method.prototypes {list(params.prototypes)}: more clusters than the {context.images} images fill",
                f"for example --set method.prototypes='[{max(2, context.images // 20)}]'",
            )
        self.student = Encoder(backbone, mlp(backbone.dim, params.hidden, params.out, bias=True))
        self.register_buffer("memory", torch.zeros(context.globals, context.images, params.out))
        self.register_buffer("assignments", torch.full((len(params.prototypes), context.images), UNKNOWN))
        for i, count in enumerate(params.prototypes):
            self.register_buffer(f"centroids{i}", torch.zeros(count, params.out))
        self.clustered: Step | None = None  # so that parts of one batch are treated alike

    def forward(self, views: Views, step: Step) -> Output:
        if step.index % step.per_epoch == 0 and step.epoch > 0 and self.clustered != step:
            self.cluster(step)
        z = unit(encode(self.student, views.all)[1])  # (V, B, D)
        targets = self.assignments[:, views.index]  # (heads, B)
        known = distributed.mean((targets != UNKNOWN).sum().float()).clamp(min=1)
        losses = [
            F.cross_entropy(self.score(z, i).flatten(0, 1), target.repeat(len(z)), reduction="sum")
            for i, target in enumerate(targets)
        ]
        loss = torch.stack(losses).sum() / (known * len(z))

        index = distributed.gather(views.index)
        self.memory[:, index] = distributed.gather(z[: len(views.globals)].detach().transpose(0, 1)).transpose(0, 1)
        return Output(loss, {"known": (targets != UNKNOWN).float().mean()}, z[0].detach())

    def score(self, z: Tensor, clustering: int) -> Tensor:
        return full_precision(F.linear)(z, self.get_buffer(f"centroids{clustering}")) / self.params.temperature

    @torch.no_grad()
    def cluster(self, step: Step) -> None:
        """Cluster the filled rows of the memory by k-means, the same on every process."""
        self.clustered = step
        filled = self.memory[0].any(-1).nonzero().squeeze(1)
        g = generator(step)
        for i, count in enumerate(self.params.prototypes):
            rows = self.memory[i % len(self.memory), filled]
            start = rows[torch.randperm(len(rows), generator=g)[:count].to(rows.device)]
            centroids, nearest = kmeans(rows, start, self.params.iterations)
            self.get_buffer(f"centroids{i}").copy_(centroids)
            self.assignments[i, filled] = nearest

    def after_backward(self, step: Step) -> None:
        if step.epoch == 0:
            self.zero_grad(set_to_none=True)

    def groups(self) -> list[Group]:
        return self.one_group()

    recipes = """
        deepcluster-v2-r50-400ep:
          linear: 74.3
          views: {multi_crop: 2x160+4x96}
          optim: {lr: 4.8, lr_scaling: none, lr_end: 0.0048, warmup_epochs: 10, warmup_from: 0.3}
          run: {batch_size: 4096, epochs: 400}
        deepcluster-v2-r50-800ep:
          linear: 75.2
          optim: {lr: 4.8, lr_scaling: none, lr_end: 0.0048, warmup_epochs: 10, warmup_from: 0.3}
          run: {batch_size: 4096, epochs: 800}
        small:
          method: {prototypes: [128], hidden: 256, out: 64}
          views: {jitter_strength: 0.5, solarize: 0}
    """
    tiny: ClassVar[Data] = {"prototypes": [3, 2], "hidden": 16, "out": 8}

    @classmethod
    def chance(cls, params: DeepClusterV2Params, context: Context) -> Chance:
        normal = f"zero in the first epoch, before there are clusters; then {CLUSTERING}"
        return Chance(normal, fmean(map(math.log, params.prototypes)), "ln K")

    @classmethod
    def advice(cls, params: DeepClusterV2Params, context: Context, spec: Spec) -> list[str]:
        lines = super().advice(params, context, spec)
        if context.epochs <= 1:
            lines.append("method deepcluster-v2: the first epoch only fills the memory, and there is no second")
        return lines
