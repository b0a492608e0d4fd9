"""SimSiam: predict the other view's embedding, whose gradient is stopped; nothing else (Chen and He 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..layers.encoder import Encoder, encode_each
from ..layers.heads import mlp
from ..layers.losses import mean_cosines, mean_of_others
from ..layers.precision import full_precision, unit
from ..layers.teacher import EMA
from ..schedule import Step
from ..spec.schema import Data
from .base import Chance, Context, Group, Method, Output, Params, Views
from .moco import MoCoV2

if TYPE_CHECKING:
    from ..backbones import Backbone


class SimSiamParams(Params):
    """Hyper-parameters of SimSiam; defaults of facebookresearch/simsiam. Percentages: the paper's, at 100 epochs."""

    out: int = Field(2048, ge=1, description="width of the embedding")
    bottleneck: int = Field(512, ge=1, description="hidden width of the predictor")
    stop_gradient: bool = Field(True, description="paper, without: 0.1 % (67.7 with), collapsed: std of the output 0")
    predictor: Literal["mlp", "fixed", "none"] = Field(
        "mlp", description="paper: fixed at its random start 1.5 % (loss stays high), none 0.1 (collapsed)"
    )
    decay_predictor_lr: bool = Field(False, description="with the schedule too; paper: 67.7 %, 68.1 at a constant rate")
    head_norm: Literal["default", "hidden", "all", "none"] = Field(
        "default", description="batch norm; paper: in hidden layers and on the projector's output 68.1 %, hidden 67.4, "
        "none 34.6, all (the predictor's output too) unstable"
    )  # fmt: skip
    similarity: Literal["cosine", "cross-entropy"] = Field(
        "cosine", description="paper: 68.1 %; cross-entropy of softmaxed embeddings 63.2"
    )
    symmetric: bool = Field(
        True, description="all pairs; else only the last global view is predicted. Paper: 68.1 %, 64.8"
    )
    alternation: int = Field(
        1, ge=1, description="steps on one set of targets, those of the weights before them (the EM reading, 5.2); "
        "paper: 1 68.1 %, 10 68.7, 100 68.9, an epoch 67.0"
    )  # fmt: skip


class SimSiam(Method[SimSiamParams]):
    """Exploring Simple Siamese Representation Learning.

    Every view predicts, and is compared with the embedding of every other view that is global: minus the cosine, mean
    over those pairs; on two views half of both directions. Each view has batch-norm statistics of its own. With
    ``alternation`` k the targets come from the weights as they were at the last multiple of k steps.
    """

    Params = SimSiamParams
    views = MoCoV2.views
    recipe: ClassVar[Data] = {
        "backbone": {"arch": "resnet50"},
        "optim": {"name": "sgd", "lr": 0.05, "per_epoch": True, "warmup_epochs": 0.0, "weight_decay": 1e-4},
        "run": {"epochs": 100.0},
    }

    def __init__(self, params: SimSiamParams, backbone: Backbone, context: Context) -> None:
        super().__init__(params)
        context.require_views(2)
        norm = None if params.head_norm == "none" else nn.BatchNorm1d
        outputs = params.head_norm in ("default", "all")
        widths = (backbone.dim, backbone.dim, backbone.dim, params.out)
        projector = mlp(*widths, norm=norm, bias=norm is None, last_norm=outputs, last_bias=True)
        if outputs:
            projector[-2].bias.requires_grad_(False)  # the norm takes it off again
        self.student = Encoder(backbone, projector)
        last = params.head_norm == "all"
        self.predictor: nn.Module = nn.Identity()
        if params.predictor != "none":
            self.predictor = mlp(params.out, params.bottleneck, params.out, norm=norm, last_norm=last, last_bias=True)
        self.predictor.requires_grad_(params.predictor == "mlp")
        if params.alternation > 1:
            self.teacher = EMA(self.student)

    def forward(self, views: Views, step: Step) -> Output:
        _, z = encode_each(self.student, views.all)  # (V, B, D)
        p = torch.stack([self.predictor(view) for view in z])
        targets = z[: len(views.globals)]
        if self.params.alternation > 1:
            with torch.no_grad():
                _, targets = encode_each(self.teacher.encoder, views.globals)
        if self.params.stop_gradient:
            targets = targets.detach()

        cosine = self.params.similarity == "cosine"
        pairs = -mean_cosines(targets, p) if cosine else cross_entropies(targets, p)  # (T, V)
        if not self.params.symmetric:
            pairs = pairs[-1:].roll(1 - len(targets), 1)  # the view itself in front
        loss = mean_of_others(pairs)
        std = unit(z[0].detach()).std(0).mean() * z.shape[-1] ** 0.5
        return Output(loss, {"output_std": std}, z[0].detach())

    def after_step(self, step: Step) -> None:
        if self.params.alternation > 1 and step.next.index % self.params.alternation == 0:
            self.teacher.update(self.student, 0.0)

    def groups(self) -> list[Group]:
        named = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        mine = [item for item in named if item[0].startswith("predictor.")]
        return [Group([x for x in named if x not in mine]), Group(mine, scheduled=self.params.decay_predictor_lr)]

    recipes = """
        simsiam-r50-100ep: {linear: 68.1}
        simsiam-r50-200ep: {linear: 70.0, run: {epochs: 200}}
        small:
          method: {out: 256, bottleneck: 64}
          views: {solarize: 0}
          backbone: {args: {zero_init_last: false}}
          optim: {lr: 0.006}
    """
    tiny: ClassVar[Data] = {"out": 16, "bottleneck": 8}

    @classmethod
    def chance(cls, params: SimSiamParams, context: Context) -> Chance:
        normal = "from 0, unrelated, towards -1, equal. Not a score: at -1 at once, with a std near 0, it has collapsed"
        return Chance(normal, 0.0, "0") if params.similarity == "cosine" else Chance(normal)


@full_precision
def cross_entropies(targets: Tensor, predictions: Tensor) -> Tensor:
    """Return cross-entropies between softmaxes over the channels: (T, V)."""
    logs = predictions.log_softmax(-1)
    return -torch.einsum("tbd,vbd->tv", targets.softmax(-1), logs) / logs.shape[1]
