"""BYOL: predict what a slow copy of oneself says of another view, without negatives (Grill et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..backbones import without_drop_path
from ..layers.encoder import Encoder, encode_each
from ..layers.heads import mlp
from ..layers.losses import mean_cosines, mean_of_others
from ..layers.teacher import EMA
from ..schedule import Schedule, Step, cosine, within
from ..spec.schema import Data
from ..views.recipe import ViewRecipe, ViewSpec
from .base import Chance, Context, Method, Output, Params, Views

if TYPE_CHECKING:
    from ..backbones import Backbone


NORMS: dict[str, Callable[[int], nn.Module] | None] = {
    "batch": nn.BatchNorm1d,
    "group": lambda width: nn.GroupNorm(math.gcd(16, width, max(1, width // 8)), width),
    "none": None,
}


class BYOLParams(Params):
    """Hyper-parameters of BYOL; defaults of deepmind-research/byol for 1000 epochs."""

    hidden: int = Field(4096, ge=1, description="hidden width of projector and predictor")
    out: int = Field(256, ge=1, description="width of the embedding")
    momentum: Annotated[Schedule, within(0, 1)] = Field(
        cosine(0.996, 1.0),
        description="of the teacher; less for shorter runs (0.99 at 300 epochs). Paper: a constant 1 (random target) "
        "18.8 %, 0.999 69.8, 0.99 72.5, 0.9 68.4, 0 (no slow copy) 0.3",
    )
    predictor: bool = Field(True, description="paper, without: 0.2 %, collapsed")
    head_norm: Literal["batch", "group", "none"] = Field(
        "batch",
        description="group: and standardized weights; 73.9 % beside 74.3. none: 0.1 without any in the backbone",
    )


def _view(blur: float, solarize: float) -> ViewSpec:
    return ViewSpec(interpolation="bicubic", blur_p=blur, blur_kernel="gaussian", solarize_p=solarize)


class BYOL(Method[BYOLParams]):
    """Bootstrap Your Own Latent. Online and target network of the paper are student (with predictor) and teacher.

    The teacher sees the global views, the student all; the loss is the mean squared distance of unit vectors over the
    pairs of a teacher's view and another of the student's, times two: on two views the sum of both directions. Each
    view has batch-norm statistics of its own. The teacher begins as a copy; the authors' code draws another network.

    Without batch statistics (arXiv 2010.10241): ``head_norm`` group and a backbone that has none of them either, such
    as resnetv2_50x1_bit (group norm, weight standardization). With no norm at all: 0.1 %, collapsed.
    """

    Params = BYOLParams
    views = ViewRecipe(
        "2x224", (_view(1.0, 0.0), _view(0.1, 0.2)), _view(0.5, 0.0).model_copy(update={"scale": (0.05, 0.14)})
    )
    recipe: ClassVar[Data] = {
        "backbone": {"arch": "resnet50", "args": {"zero_init_last": False}},
        "optim": {"name": "lars", "lr": 0.2, "warmup_epochs": 10.0, "warmup_reaches": False, "weight_decay": 1.5e-6},
        "run": {"epochs": 1000.0},
    }

    def __init__(self, params: BYOLParams, backbone: Backbone, context: Context) -> None:
        super().__init__(params)
        context.require_views(2)
        self.student = Encoder(backbone, head(params, backbone.dim))
        self.predictor = head(params, params.out) if params.predictor else nn.Identity()
        self.teacher = EMA(self.student)
        without_drop_path(self.teacher)

    def forward(self, views: Views, step: Step) -> Output:
        with torch.no_grad():
            _, targets = encode_each(self.teacher.encoder, views.globals)  # (G, B, D)
        _, z = encode_each(self.student, views.all)  # (V, B, D)
        p = torch.stack([self.predictor(view) for view in z])
        loss = 2 * mean_of_others(2 - 2 * mean_cosines(targets, p))
        return Output(loss, {}, z[0].detach())

    def after_step(self, step: Step) -> None:
        self.teacher.update(self.student, self.params.momentum.at(step))

    recipes = """
        byol-r50-300ep:
          linear: 72.5
          method: {momentum: {base: 0.99}}
          optim: {lr: 0.3, weight_decay: 1e-6}
          run: {batch_size: 4096, epochs: 300}
        byol-r50-1000ep: {linear: 74.3, knn: 64.8, run: {batch_size: 4096}}
        byol-r50-gn-ws-1000ep:
          linear: 73.9
          method: {head_norm: group}
          backbone: {arch: resnetv2_50x1_bit}
          run: {batch_size: 4096}
        # Without negatives only steps lead from what is easy to agree on to the rest: smaller batches, a teacher that
        # looks back over five steps, and no solarization, which takes the contrast from what is half bright.
        small:
          method: {hidden: 256, out: 64, momentum: {base: 0.8}}
          views: {solarize: 0}
          run: {epochs: 30, batch_size: 64}
    """
    tiny: ClassVar[Data] = {"hidden": 16, "out": 8, "momentum": 0.9}

    @classmethod
    def chance(cls, params: BYOLParams, context: Context) -> Chance:
        normal = (
            "4 where predictions and targets are unrelated, 0 where equal; it falls fast and may rise again. Not a "
            "score: near 0 together with a std near 0 it has collapsed"
        )
        return Chance(normal, 4.0, "4")


def head(p: BYOLParams, width: int) -> nn.Sequential:
    """Build projector or predictor; Linears begin as haiku's: normal, 1 / sqrt(fan-in), cut at two deviations."""
    layers = mlp(width, p.hidden, p.out, norm=NORMS[p.head_norm], bias=True, last_bias=False)
    for i, layer in enumerate(layers):
        if isinstance(layer, nn.Linear):
            std = layer.in_features**-0.5
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            if p.head_norm == "group":
                layers[i] = Standardized(layer)
    return layers


class Standardized(nn.Module):
    """A Linear whose weights are used at mean 0 and variance 1 / fan-in for each output (Qiao et al., 1903.10520)."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, 1, correction=0, keepdim=True)
        scale = torch.rsqrt((variance * self.weight.shape[1]).clamp(min=1e-4))
        return F.linear(x, (self.weight - mean) * scale, self.bias)
