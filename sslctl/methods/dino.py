"""DINO: a student matches the output of its own moving average on other views (Caron et al. 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

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
from ..views.recipe import ViewRecipe, ViewSpec
from .base import Facts, Method, Output, Params, Views

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
    recipe: ClassVar[dict[str, Any]] = {
        "backbone": {"arch": "vit_small_patch16_224", "drop_path": 0.1, "position": "dino"},
        "optim": {
            "name": "adamw", "lr": 5e-4, "lr_end": 1e-6, "warmup_epochs": 10.0, "weight_decay": 0.04,
            "weight_decay_end": 0.4, "clip": 3.0, "clip_each": True,
        },
        "run": {"epochs": 100.0},
    }  # fmt: skip

    def __init__(self, params: DINOParams, backbone: Backbone, facts: Facts) -> None:
        super().__init__(params)
        facts.require_views(2)
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

    def encoder(self) -> nn.Module:
        return self.teacher.net.backbone


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
