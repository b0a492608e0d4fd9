"""SimCLR: of all images in the batch, find the other view of one's own (Chen et al. 2020)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..layers.encoder import Encoder, encode
from ..layers.heads import mlp
from ..layers.losses import mean_of_others
from ..layers.precision import full_precision
from ..runtime import distributed
from ..schedule import Step
from ..spec.schema import Data
from ..views.recipe import ViewRecipe, ViewSpec
from .base import CONTRASTIVE, Chance, Context, Method, Output, Params, Views

if TYPE_CHECKING:
    from ..backbones import Backbone


class SimCLRParams(Params):
    """Hyper-parameters of SimCLR; defaults of google-research/simclr with the head of the first paper."""

    temperature: float = Field(0.1, gt=0, description="temperature of the similarities; 0.5 for CIFAR-10")
    head_layers: int = Field(2, ge=1, le=8, description="Linears in the head: 2 in the paper, 3 in SimCLR v2")
    out: int = Field(128, ge=1, description="width of the embedding")


_VIEW = ViewSpec(interpolation="bicubic", jitter=(0.8, 0.8, 0.8, 0.2), blur_p=0.5, blur_kernel="gaussian")


class SimCLR(Method[SimCLRParams]):
    """A Simple Framework for Contrastive Learning of Visual Representations.

    Each view of an image is to be closest to each other global view of that image, among the global views of all other
    images. Global views are targets; local ones, which the paper does not have, only predict. No gradient is stopped.
    Both views go through the network in one batch, as in the authors' code, so that they share batch-norm statistics.
    Weight decay follows that code (1e-4; the paper says 1e-6), and pixels are not normalised.
    """

    Params = SimCLRParams
    views = ViewRecipe("2x224", (_VIEW,), _VIEW.model_copy(update={"scale": (0.05, 0.14)}), (0, 0, 0), (1, 1, 1))
    recipe: ClassVar[Data] = {
        "backbone": {"arch": "resnet50"},
        "optim": {
            "name": "lars", "lr": 0.3, "warmup_epochs": 10.0, "warmup_reaches": False, "weight_decay": 1e-4,
            "lr_in_momentum": True,
        },
        "run": {"epochs": 100.0},
    }  # fmt: skip

    def __init__(self, params: SimCLRParams, backbone: Backbone, context: Context) -> None:
        super().__init__(params)
        context.require_views(2)
        widths = [backbone.dim] * params.head_layers
        head = mlp(*widths, params.out, last_norm=True)
        head[-1] = nn.BatchNorm1d(params.out)
        head[-1].bias.requires_grad_(False)  # scale without shift
        for layer in head:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
        self.student = Encoder(backbone, head)

    def forward(self, views: Views, step: Step) -> Output:
        _, z = encode(self.student, views.all)  # (V, B, D)
        loss = nt_xent(z, len(views.globals), self.params.temperature)
        return Output(loss, {}, z[0].detach())

    recipes = """
        simclr-r50-1000ep: {linear: 69.3, knn: 60.7, run: {batch_size: 4096, epochs: 1000}}
        simclr-v2-r50-800ep:
          linear: 71.7
          method: {head_layers: 3}
          optim: {lr: 1.6, lr_scaling: sqrt, warmup_epochs: 40}
          run: {batch_size: 4096, epochs: 800}
        simclr-cifar10-r18-1000ep:
          method: {temperature: 0.5}
          views: {multi_crop: 2x32, jitter_strength: 0.5, blur: 0}
          backbone: {arch: resnet18}
          optim: {lr: 1.0, lr_scaling: linear}
          run: {batch_size: 512, epochs: 1000}
        small:
          method: {out: 64, temperature: 0.2}
          views: {jitter_strength: 0.5}
    """
    tiny: ClassVar[Data] = {"out": 8}

    @classmethod
    def chance(cls, params: SimCLRParams, context: Context) -> Chance:
        others = context.globals * (context.batch_size - 1)
        return Chance(CONTRASTIVE, 2 * math.log(1 + others), "2 ln(1 + G(B-1))")


@full_precision
def nt_xent(z: Tensor, targets: int, temperature: float) -> Tensor:
    """Return the normalised, temperature-scaled cross-entropy of ``z`` (V, B, D), the first ``targets`` global.

    For a view v and another, global view t of image i, with similarities s of unit-length embeddings:
    -log( exp s(v_i, t_i) / (exp s(v_i, t_i) + sum over global views u of images j != i of exp s(v_i, u_j)) ). The mean
    over pairs (v, t) and images, times two: on two views that is the sum of two means which ``add_contrastive_loss``
    (google-research/simclr, objective.py) returns, twice the paper's equation 1.
    """
    z = F.normalize(z, dim=-1)
    keys = distributed.gather(z[:targets].transpose(0, 1))  # (N, T, D), N images on all processes
    logits = torch.einsum("vbd,ntd->vbnt", z, keys) / temperature  # (V, B, N, T)
    image = torch.arange(z.shape[1], device=z.device)
    own = image + distributed.rank() * len(image)
    positive = logits[:, image, own]  # (V, B, T)
    itself = F.one_hot(own, len(keys)).bool()[..., None]  # (B, N, 1)
    negative = logits.masked_fill(itself, -torch.inf).flatten(2).logsumexp(-1, keepdim=True)  # (V, B, 1)
    losses = (torch.logaddexp(positive, negative) - positive).mean(1)  # (V, T)
    return 2 * mean_of_others(losses.T)
