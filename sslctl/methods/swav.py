"""SwAV: predict the cluster of a view from another view, clusters used equally (Caron et al. 2020)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..layers.clusters import sinkhorn, target_logs
from ..layers.encoder import Encoder, encode
from ..layers.heads import mlp
from ..layers.losses import swapped_cross_entropy
from ..layers.precision import full_precision, unit
from ..runtime import distributed
from ..schedule import Step
from ..spec.schema import Data, Spec
from ..views.recipe import IMAGENET_MEAN, ViewRecipe, ViewSpec
from .base import CLUSTERING, Chance, Context, Group, Method, Output, Params, Views

if TYPE_CHECKING:
    from ..backbones import Backbone


class SwAVParams(Params):
    """Hyper-parameters of SwAV; defaults of facebookresearch/swav for a batch of 256."""

    prototypes: int = Field(3000, ge=2, description="cluster centres")
    hidden: int = Field(2048, ge=1, description="hidden width of the head")
    out: int = Field(128, ge=1, description="width of the embedding")
    temperature: float = Field(0.1, gt=0, description="temperature of the predictions")
    epsilon: float = Field(0.05, ge=0.02, description="Sinkhorn's regularisation: the smaller, the sharper the targets")
    sinkhorn_iterations: int = Field(
        3, ge=0, description="0 takes a plain softmax, which collapses: nothing balances it"
    )
    queue: int = Field(3840, ge=0, description="past embeddings to assign with; in whole batches, at most an epoch's")
    queue_from_epoch: int = Field(15, ge=0, description="epoch in which the queue begins to fill")
    freeze_prototypes_epochs: float = Field(1.0, ge=0, description="how long the prototypes stay as they are")


_VIEW = ViewSpec(scale=(0.14, 1.0), jitter=(0.8, 0.8, 0.8, 0.2), blur_p=0.5)


class SwAV(Method[SwAVParams]):
    """Unsupervised Learning of Visual Features by Contrasting Cluster Assignments.

    Every global view is assigned to prototypes (its "code"), and every other view, global or local, predicts that
    assignment: the mean over all such pairs. The authors' order in a step: normalise prototypes; score; consult the
    queue of that view once it is full; put the batch at its front. Everything is decayed and adapted, biases too.
    """

    Params = SwAVParams
    # 0.228 is the authors' slip, which their weights were trained with. Without local views their scale is 0.08-1.
    views = ViewRecipe(
        "2x224+6x96", (_VIEW,), _VIEW.model_copy(update={"scale": (0.05, 0.14)}), IMAGENET_MEAN, (0.228, 0.224, 0.225)
    )
    recipe: ClassVar[Data] = {
        "backbone": {"arch": "resnet50", "args": {"zero_init_last": False}},
        "optim": {"name": "larc", "lr": 0.6, "lr_end": 0.0006, "warmup_epochs": 0.0, "weight_decay": 1e-6},
        "run": {"epochs": 100.0},
    }

    queue: Tensor

    def __init__(self, params: SwAVParams, backbone: Backbone, context: Context) -> None:
        super().__init__(params)
        context.require_views(2)
        self.student = Encoder(backbone, mlp(backbone.dim, params.hidden, params.out, bias=True))
        self.prototypes = nn.Linear(params.out, params.prototypes, bias=False)
        self.batch_size = context.batch_size
        batches = min(params.queue, context.images) // context.batch_size
        self.register_buffer("queue", torch.zeros(context.globals, batches * context.batch_size, params.out))

    def forward(self, views: Views, step: Step) -> Output:
        with torch.no_grad():
            self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
        z = unit(encode(self.student, views.all)[1])  # (V, B, D)
        scores = self.score(z)  # (V, B, K)

        q = torch.stack([self.assign(view, z[view].detach(), step) for view in range(len(views.globals))])  # (G, B, K)
        loss = swapped_cross_entropy(q, scores, self.params.temperature)

        nearest = scores[: len(q)].argmax(-1).flatten()
        logs = target_logs(q) | {
            "prototype_usage": scores.new_zeros(scores.shape[-1]).index_fill_(0, nearest, 1.0).mean(),
            "queue_filled": self.queue.any(-1).float().mean() if self.queue.numel() else torch.zeros(()),
        }
        return Output(loss, logs, z[0].detach())

    def score(self, z: Tensor) -> Tensor:
        return full_precision(F.linear)(z, self.prototypes.weight)

    @torch.no_grad()
    def assign(self, view: int, z: Tensor, step: Step) -> Tensor:
        """Assign ``z`` (B, D) softly to prototypes, (B, K), balanced over the batch and the queue of ``view``."""
        queue = self.queue[view]  # (L, D), the newest first
        since = step.index - self.params.queue_from_epoch * step.per_epoch
        full = since * self.batch_size >= len(queue)  # then and only then its last row is not zero
        past = queue.chunk(distributed.world_size())[distributed.rank()] if full else queue[:0]
        scores, epsilon = self.score(torch.cat([past, z])), self.params.epsilon
        if self.params.sinkhorn_iterations:
            q = sinkhorn(scores, epsilon, self.params.sinkhorn_iterations)
        else:
            q = F.softmax(scores / epsilon, dim=-1)
        if since >= 0:
            queue.copy_(torch.cat([distributed.gather(z), queue])[: len(queue)])
        return q[-len(z) :]

    def after_backward(self, step: Step) -> None:
        if step.index < round(self.params.freeze_prototypes_epochs * step.per_epoch):
            self.prototypes.weight.grad = None

    def groups(self) -> list[Group]:
        return self.one_group()

    recipes = """
        swav-r50-100ep:
          linear: 72.1
          method: {queue: 0}
          optim: {lr: 4.8, lr_scaling: none, lr_end: 0.0048, warmup_epochs: 10, warmup_from: 0.3}
          run: {batch_size: 4096, epochs: 100}
        swav-r50-200ep:
          linear: 73.9
          method: {queue: 0}
          optim: {lr: 4.8, lr_scaling: none, lr_end: 0.0048, warmup_epochs: 10, warmup_from: 0.3}
          run: {batch_size: 4096, epochs: 200}
        swav-r50-400ep:
          linear: 74.6
          method: {queue: 0}
          optim: {lr: 4.8, lr_scaling: none, lr_end: 0.0048, warmup_epochs: 10, warmup_from: 0.3}
          run: {batch_size: 4096, epochs: 400}
        swav-r50-800ep:
          linear: 75.3
          knn: 65.7
          method: {queue: 0}
          optim: {lr: 4.8, lr_scaling: none, lr_end: 0.0048, warmup_epochs: 10, warmup_from: 0.3}
          run: {batch_size: 4096, epochs: 800}
        swav-r50-200ep-batch256: {linear: 72.7, run: {epochs: 200}}
        swav-r50-400ep-batch256: {linear: 74.3, run: {epochs: 400}}
        # Targets must be sharper than predictions by more than views differ, or nothing leaves the loss of ln K.
        small:
          method: {prototypes: 128, hidden: 256, out: 64, queue: 0, temperature: 0.2, epsilon: 0.02}
          views: {jitter_strength: 0.5}
    """
    tiny: ClassVar[Data] = {"prototypes": 7, "hidden": 16, "out": 8, "queue": 12, "queue_from_epoch": 0}

    @classmethod
    def chance(cls, params: SwAVParams, context: Context) -> Chance:
        return Chance(CLUSTERING, math.log(params.prototypes), "ln K")

    @classmethod
    def advice(cls, params: SwAVParams, context: Context, spec: Spec) -> list[str]:
        lines, assigned = super().advice(params, context, spec), context.batch_size + params.queue
        if params.prototypes > assigned:
            lines.append(
                f"method.prototypes {params.prototypes}: more than the {assigned} images assigned at a time, which "
                f"cannot use them equally: the loss stays at ln {params.prototypes}; at most {assigned}, or a queue"
            )
        return lines
