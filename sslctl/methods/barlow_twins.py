"""Barlow Twins: the correlations between the embeddings of two views are to be the identity (Zbontar et al. 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ..layers.encoder import Encoder, encode_each
from ..layers.heads import mlp
from ..layers.losses import squared_products, view_pairs
from ..layers.precision import full_precision
from ..runtime import distributed
from ..schedule import Step
from ..spec.schema import Data
from ..views.recipe import ViewRecipe, ViewSpec
from .base import Chance, Context, Group, Method, Output, Params, Views

if TYPE_CHECKING:
    from ..backbones import Backbone


class BarlowTwinsParams(Params):
    """Hyper-parameters of Barlow Twins; defaults of facebookresearch/barlowtwins."""

    out: int = Field(8192, ge=2, description="width of the head, hidden and out; accuracy grows with it")
    redundancy: float = Field(
        0.0051, ge=0, description="lambda, weight of correlations between different numbers; paper: 0.005, of little "
        "influence around it"
    )  # fmt: skip
    bias_lr: float = Field(0.024, gt=0, description="learning rate of biases and norms, as a share of optim.lr")


def _view(blur: float, solarize: float) -> ViewSpec:
    return ViewSpec(interpolation="bicubic", blur_p=blur, solarize_p=solarize)


class BarlowTwins(Method[BarlowTwinsParams]):
    """Self-Supervised Learning via Redundancy Reduction.

    Embeddings are standardized over the batch of all processes and correlated between two views: the sum over the
    diagonal of (c - 1)^2 and, times lambda, over the rest of c^2. Each global view pairs with every other view, local
    ones too; the loss is the mean over the pairs. lambda and weight decay (1e-6) follow the authors' code; the paper
    says 0.005 and 1.5e-6. Their code also sums c over processes without gradient, which shortens gradients by the
    number of processes; here many processes compute what one would.
    """

    Params = BarlowTwinsParams
    views = ViewRecipe(
        "2x224", (_view(1.0, 0.0), _view(0.1, 0.2)), _view(0.5, 0.0).model_copy(update={"scale": (0.05, 0.14)})
    )
    recipe: ClassVar[Data] = {
        "backbone": {"arch": "resnet50"},
        "optim": {
            "name": "lars", "lr": 0.2, "lr_end": 0.0002, "warmup_epochs": 10.0, "warmup_reaches": False,
            "weight_decay": 1e-6,
        },
        "run": {"epochs": 1000.0},
    }  # fmt: skip

    def __init__(self, params: BarlowTwinsParams, backbone: Backbone, context: Context) -> None:
        super().__init__(params)
        context.require_views(2)
        self.student = Encoder(backbone, mlp(backbone.dim, *[params.out] * 3, last_bias=False))

    def forward(self, views: Views, step: Step) -> Output:
        _, z = encode_each(self.student, views.all)  # (V, B, D)
        pairs = view_pairs(len(views.globals), len(z))
        losses = [redundancy(z[a], z[b], self.params.redundancy) for a, b in pairs]
        return Output(torch.stack(losses).mean(), {}, z[0].detach())

    def groups(self) -> list[Group]:
        weights, rest = self.split_by_axes()
        rest.lr_scale = self.params.bias_lr
        return [weights, rest]

    recipes = """
        barlow-twins-r50-1000ep: {linear: 73.5, knn: 66.0, optim: {lr_end: 0.0016}, run: {batch_size: 2048}}
        # lambda weighs D - 1 correlations against one: 42 to 1 with the paper's 8192 outputs, 13 to 1 here.
        small:
          method: {out: 256, redundancy: 0.05, bias_lr: 1}
          backbone: {args: {zero_init_last: false}}
    """
    tiny: ClassVar[Data] = {"out": 16}

    @classmethod
    def chance(cls, params: BarlowTwinsParams, context: Context) -> Chance:
        normal = "about D where the views' numbers are unrelated; falls fast, then slowly, and never near 0"
        return Chance(normal, float(params.out), "D")

    @classmethod
    def derived(cls, params: BarlowTwinsParams, context: Context) -> list[str]:
        others, weight = params.out - 1, params.redundancy * (params.out - 1)
        line = f"redundancy {params.redundancy:g} x {others} other outputs: {weight:.2g} to 1 (the paper's 42)"
        return [*super().derived(params, context), line]


@full_precision
def redundancy(x: Tensor, y: Tensor, weight: float) -> Tensor:
    """Return the loss of two views' embeddings, (B, D) each."""
    x, y = standardize(x), standardize(y)
    images = distributed.world_size() * len(x)
    diagonal = distributed.total((x * y).sum(0)) / images  # of the correlations c = x.T @ y / images, (D, D)
    everything = squared_products(x, y) / images**2
    return (diagonal - 1).square().sum() + weight * (everything - diagonal.square().sum())


def standardize(x: Tensor) -> Tensor:
    """Apply a batch norm without scale and shift, over all processes."""
    x = x - distributed.mean(x.mean(0))
    return x * torch.rsqrt(distributed.mean(x.square().mean(0)) + 1e-5)
