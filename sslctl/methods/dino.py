"""DINO: a student matches the output of its own moving average on other views (Caron et al. 2021)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..backbones import without_drop_path
from ..layers.buffers import Center
from ..layers.clusters import target_logs
from ..layers.encoder import Encoder, encode
from ..layers.heads import WeightNormed, mlp
from ..layers.losses import swapped_cross_entropy
from ..layers.precision import unit
from ..layers.teacher import EMA
from ..schedule import Schedule, Step, constant, cosine, within
from ..spec.schema import Data
from ..views.recipe import ViewRecipe, ViewSpec
from .base import CLUSTERING, Chance, Context, Method, Output, Params, Views

if TYPE_CHECKING:
    from ..backbones import Backbone


class DINOParams(Params):
    """Hyper-parameters of DINO; defaults of facebookresearch/dino, main_dino.py.

    The released ViT-S/16 has ``teacher_temperature`` 0.04 to 0.07 over 30 epochs and ``norm_last_layer`` false.
    """

    prototypes: int = Field(65536, ge=2, description="outputs of the head")
    hidden: int = Field(2048, ge=1, description="hidden width of the head")
    bottleneck: int = Field(256, ge=1, description="width before the prototypes")
    head_layers: int = Field(3, ge=1, le=8, description="Linears before the prototypes")
    head_norm: bool = Field(False, description="batch norm in the head")
    norm_last_layer: bool = Field(True, description="keep the prototypes at length one; steadier, a little worse")
    student_temperature: float = Field(0.1, gt=0)
    teacher_temperature: Annotated[Schedule, within(1e-3, 10)] = Field(
        constant(0.04).model_copy(update={"per_epoch": True}),
        description="smaller is sharper; 0.04 to 0.07. Without sharpening (0.1): uniform, collapsed",
    )
    momentum: Annotated[Schedule, within(0, 1)] = Field(cosine(0.996, 1.0), description="of the teacher")
    center_momentum: float = Field(
        0.9, ge=0, le=1, description="of the centre. 1 does not centre: one prototype takes all, collapsed"
    )
    freeze_last_layer_epochs: float = Field(1.0, ge=0, description="how long the prototypes stay as they are")


def _view(scale: tuple[float, float], blur: float, solarize: float = 0.0) -> ViewSpec:
    return ViewSpec(scale=scale, interpolation="bicubic", blur_p=blur, solarize_p=solarize)


class DINO(Method[DINOParams]):
    """Emerging Properties in Self-Supervised Vision Transformers.

    The teacher sees the global views, the student all; the loss is the mean over the pairs of a teacher's view and
    another of the student's. ``encoder()`` is the teacher's backbone, which is the better one.
    """

    Params = DINOParams
    views = ViewRecipe("2x224+8x96", (_view((0.4, 1), 1.0), _view((0.4, 1), 0.1, 0.2)), _view((0.05, 0.4), 0.5))
    recipe: ClassVar[Data] = {
        "backbone": {"arch": "vit_small_patch16_224", "drop_path": 0.1, "position": "dino"},
        "optim": {
            "name": "adamw", "lr": 5e-4, "lr_end": 1e-6, "warmup_epochs": 10.0, "weight_decay": 0.04,
            "weight_decay_end": 0.4, "clip": 3.0, "clip_each": True,
        },
        "run": {"epochs": 100.0},
    }  # fmt: skip

    def __init__(self, params: DINOParams, backbone: Backbone, context: Context) -> None:
        super().__init__(params)
        context.require_views(2)
        self.student = Encoder(backbone, Head(backbone.dim, params))
        self.teacher = EMA(self.student)
        without_drop_path(self.teacher)
        self.center = Center(params.prototypes, params.center_momentum)

    def forward(self, views: Views, step: Step) -> Output:
        p = self.params
        temperature = p.teacher_temperature.at(step)
        with torch.no_grad():
            _, t = encode(self.teacher.net, views.globals)  # (G, B, K)
            q = F.softmax((t - self.center.value) / temperature, dim=-1)
        h, s = encode(self.student, views.all)  # (V, B, D), (V, B, K)
        loss = swapped_cross_entropy(q, s, p.student_temperature)
        self.center.update(t)

        logs = target_logs(q[0]) | {"teacher_temperature": torch.tensor(temperature)}
        return Output(loss, logs, h[0].detach())

    def after_backward(self, step: Step) -> None:
        if step.index < round(self.params.freeze_last_layer_epochs * step.per_epoch):
            for p in self.student.head.get_submodule("last_layer").parameters():
                p.grad = None

    def after_step(self, step: Step) -> None:
        self.teacher.update(self.student, self.params.momentum.at(step))

    def encoder(self) -> Backbone:
        return self.teacher.net.backbone

    recipes = """
        dino-vits16-100ep: {linear: 74.0, knn: 69.3, run: {batch_size: 512}}
        dino-vits16-300ep:
          linear: 76.0
          knn: 73.3
          method:
            norm_last_layer: false
            teacher_temperature: {base: 0.07, warmup_from: 0.04, warmup_epochs: 30}
          run: {batch_size: 1024, epochs: 300}
        dino-vits16-800ep:
          linear: 77.0
          knn: 74.5
          method:
            norm_last_layer: false
            teacher_temperature: {base: 0.07, warmup_from: 0.04, warmup_epochs: 30}
          views: {multi_crop: 2x224@0.25-1+10x96@0.05-0.25}
          optim: {lr_end: 1e-5, clip: 0}
          run: {batch_size: 1024, epochs: 800, precision: fp32}
        dino-r50-100ep:
          views: {multi_crop: 2x224@0.14-1+6x96@0.05-0.14}
          backbone: {arch: resnet50, drop_path: 0, position: timm}
          optim: {name: sgd, lr: 0.03, lr_end: 1e-6, weight_decay: 1e-4, clip: 3, clip_each: true}
          run: {batch_size: 512, epochs: 100}
        # A centre that follows the batch: in few steps a slow one leaves most prototypes unused. On the demo set two
        # are left in the end all the same (target_information ln 2), after more steps, with better features.
        small:
          method:
            {prototypes: 128, hidden: 256, bottleneck: 64, head_norm: true, student_temperature: 0.1,
             teacher_temperature: 0.04, center_momentum: 0.5, momentum: {base: 0.9}}
          views: {solarize: 0}
          backbone: {args: {zero_init_last: false}}
          optim: {lr: 0.006, weight_decay_end: 1e-4}
          run: {epochs: 40, batch_size: 64}
    """
    tiny: ClassVar[Data] = {"prototypes": 12, "hidden": 16, "bottleneck": 8, "norm_last_layer": False, "momentum": 0.9}

    health_on_features = True
    curves: ClassVar[dict[str, str]] = {
        "target_entropy": "of the teacher's targets, as a share of ln K: falls slowly, from below 1 where its "
        "temperature is low. At 1 they are uniform and say nothing"
    }

    @classmethod
    def chance(cls, params: DINOParams, context: Context) -> Chance:
        normal = f"{CLUSTERING}. For the first epochs it may stay there"
        return Chance(normal, math.log(params.prototypes), "ln K")


class Head(nn.Module):
    """An MLP with GELU to a bottleneck of unit length, then weight-normed prototypes; names as in the authors' code."""

    def __init__(self, dim: int, p: DINOParams) -> None:
        super().__init__()
        hidden = [p.hidden] * (p.head_layers - 1)
        norm = nn.BatchNorm1d if p.head_norm else None
        self.mlp = mlp(dim, *hidden, p.bottleneck, norm=norm, bias=True, activation=nn.GELU)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = WeightNormed(p.bottleneck, p.prototypes)
        self.last_layer.weight_g.requires_grad_(not p.norm_last_layer)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.last_layer(unit(self.mlp(h)))
        return out
