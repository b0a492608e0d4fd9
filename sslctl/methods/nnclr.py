"""NNCLR: find in the batch the image whose neighbour in a support set one is (Dwibedi et al. 2021)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ..layers.buffers import Queue
from ..layers.encoder import Encoder, encode_each
from ..layers.heads import mlp
from ..layers.losses import info_nce, mean_of_others
from ..layers.precision import full_precision, unit
from ..schedule import Step
from ..spec.schema import Data
from .base import CONTRASTIVE, Chance, Context, Method, Output, Params, Views
from .byol import BYOL

if TYPE_CHECKING:
    from ..backbones import Backbone


class NNCLRParams(Params):
    """Hyper-parameters of NNCLR; the paper's, for there is no official code."""

    temperature: float = Field(0.1, gt=0, description="temperature of the similarities")
    hidden: int = Field(2048, ge=1, description="hidden width of the projector")
    out: int = Field(256, ge=1, description="width of the embedding")
    predictor_hidden: int = Field(4096, ge=1, description="hidden width of the predictor")
    queue: int = Field(98304, ge=1, description="embeddings in the support set, at most one an image")


class NNCLR(Method[NNCLRParams]):
    """With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of Visual Representations.

    The embedding of a global view is replaced by its nearest neighbour in the support set; that is to find the
    prediction of its own image among those of all images in another view, global or local. The loss is the mean over
    the pairs (the paper's sum of two directions, halved). Then the first view's embeddings join the support set. Each
    view has batch-norm statistics of its own.
    """

    Params = NNCLRParams
    views = BYOL.views
    recipe: ClassVar[Data] = {
        "backbone": {"arch": "resnet50"},
        "optim": {"name": "lars", "lr": 0.3, "warmup_epochs": 10.0, "warmup_reaches": False, "weight_decay": 1e-6},
        "run": {"epochs": 1000.0},
    }

    def __init__(self, params: NNCLRParams, backbone: Backbone, context: Context) -> None:
        super().__init__(params)
        context.require_views(2)
        projector = mlp(backbone.dim, params.hidden, params.hidden, params.out, last_norm=True)
        projector[-1] = nn.BatchNorm1d(params.out)
        self.student = Encoder(backbone, projector)
        self.predictor = mlp(params.out, params.predictor_hidden, params.out)
        self.queue = Queue(min(params.queue, context.images), params.out)

    def forward(self, views: Views, step: Step) -> Output:
        _, z = encode_each(self.student, views.all)  # (V, B, D)
        p = unit(torch.stack([self.predictor(view) for view in z]))
        targets = unit(z[: len(views.globals)].detach())
        pairs = info_nce(p, self.neighbours(targets), self.params.temperature)  # (V, G), predictions are the keys
        loss = mean_of_others(pairs.T)
        self.queue.push(targets[0])
        return Output(loss, {"queue_age": self.queue.age(step, targets[0])}, z[0].detach())

    @torch.no_grad()
    def neighbours(self, z: Tensor) -> Tensor:
        """Return the nearest in the support set of each of ``z`` (G, B, D)."""
        return self.queue.keys[full_precision(torch.matmul)(z, self.queue.keys.T).argmax(-1)]

    recipes = """
        nnclr-r50-1000ep: {linear: 75.4, run: {batch_size: 4096}}
        small:
          method: {hidden: 256, out: 64, predictor_hidden: 256, temperature: 0.2, queue: 1024}
          backbone: {args: {zero_init_last: false}}
    """
    tiny: ClassVar[Data] = {"hidden": 16, "out": 8, "predictor_hidden": 16, "queue": 18}

    @classmethod
    def chance(cls, params: NNCLRParams, context: Context) -> Chance:
        normal = f"{CONTRASTIVE}; neighbours are never quite the image itself"
        return Chance(normal, math.log(context.batch_size), "ln B")
