"""VICReg: alike between views, spread over the batch, uncorrelated among their numbers (Bardes et al. 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ..layers.encoder import Encoder, encode_each
from ..layers.heads import mlp
from ..layers.losses import squared_products, view_pairs
from ..layers.precision import full_precision
from ..runtime import distributed
from ..schedule import Step
from ..spec.schema import Data
from .barlow_twins import BarlowTwins
from .base import Chance, Context, Method, Output, Params, Views

if TYPE_CHECKING:
    from ..backbones import Backbone


class VICRegParams(Params):
    """Hyper-parameters of VICReg; defaults of facebookresearch/vicreg."""

    out: int = Field(8192, ge=2, description="width of the head, hidden and out")
    invariance: float = Field(25.0, ge=0, description="weight of the mean squared difference of two views")
    variance: float = Field(25.0, ge=0, description="weight of the variance term; 0 collapses")
    covariance: float = Field(1.0, ge=0, description="weight of the covariance term")


class VICReg(Method[VICRegParams]):
    """Variance-Invariance-Covariance Regularization.

    Invariance is the mean over pairs of a global view and another, local ones too; variance and covariance are of every
    view, over the batches of all processes. As in the authors' code, the variance term is the views' mean, half of the
    paper's, the covariance term twice the views' mean, and invariance is averaged over the D numbers as well.
    """

    Params = VICRegParams
    views = BarlowTwins.views
    recipe: ClassVar[Data] = {
        "backbone": {"arch": "resnet50"},
        "optim": {
            "name": "lars", "lr": 0.2, "lr_end": 0.0002, "warmup_epochs": 10.0, "warmup_reaches": False,
            "weight_decay": 1e-6,
        },
        "run": {"epochs": 1000.0},
    }  # fmt: skip

    def __init__(self, params: VICRegParams, backbone: Backbone, context: Context) -> None:
        super().__init__(params)
        context.require_views(2)
        self.student = Encoder(backbone, mlp(backbone.dim, *[params.out] * 3, bias=True, last_bias=False))

    def forward(self, views: Views, step: Step) -> Output:
        p = self.params
        _, z = encode_each(self.student, views.all)  # (V, B, D)
        invariance = torch.stack([F.mse_loss(z[a], z[b]) for a, b in view_pairs(len(views.globals), len(z))]).mean()
        variance, covariance = torch.stack([variance_covariance(view) for view in z]).mean(0)
        loss = p.invariance * invariance + p.variance * variance + 2 * p.covariance * covariance
        logs = {"invariance": invariance, "variance": variance, "covariance": covariance}
        return Output(loss, {name: value.detach() for name, value in logs.items()}, z[0].detach())

    recipes = """
        vicreg-r50-1000ep: {linear: 73.2, optim: {lr_end: 0.0016}, run: {batch_size: 2048}}
        small:
          method: {out: 256}
    """
    tiny: ClassVar[Data] = {"out": 16}

    @classmethod
    def chance(cls, params: VICRegParams, context: Context) -> Chance:
        normal = "falls fast, then slowly; at rest at the weight of the variance term, it has collapsed"
        return Chance(normal, float(params.variance), "variance weight")


@full_precision
def variance_covariance(x: Tensor) -> Tensor:
    """Return, of (B, D), the mean of max(0, 1 - deviation) and the covariances' sum of squares / D; (2,)."""
    x = x - distributed.mean(x.mean(0))
    last = distributed.world_size() * len(x) - 1
    squares = distributed.total(x.square().sum(0))  # (D,), the diagonal of x.T @ x
    deviation = (squares / last + 1e-4).sqrt()
    off_diagonal = (squared_products(x, x) - squares.square().sum()) / last**2
    return torch.stack([F.relu(1 - deviation).mean(), off_diagonal / x.shape[1]])
