"""MoCo v3: find the key of one's own image in the batch, by a predictor, with a momentum teacher (Chen et al. 2021)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field

from ..backbones import without_drop_path
from ..backbones.vit_init import begin_as_moco_v3
from ..layers.encoder import Encoder, encode_each
from ..layers.heads import mlp
from ..layers.losses import info_nce, mean_of_others
from ..layers.precision import unit
from ..layers.teacher import EMA
from ..schedule import Schedule, Step, cosine, within
from ..spec.schema import Data
from ..views.recipe import ViewRecipe, ViewSpec
from .base import CONTRASTIVE, Chance, Context, Group, Method, Output, Params, Views

if TYPE_CHECKING:
    from ..backbones import Backbone


class MoCoV3Params(Params):
    """Hyper-parameters of MoCo v3; defaults of facebookresearch/moco-v3 for a ResNet-50 and 100 epochs."""

    temperature: float = Field(1.0, gt=0, description="temperature of the similarities; 0.2 for a ViT")
    hidden: int = Field(4096, ge=1, description="hidden width of projector and predictor")
    out: int = Field(256, ge=1, description="width of the embedding")
    head_layers: int = Field(2, ge=1, le=8, description="Linears in the projector; 3 for a ViT")
    predictor_norm: bool = Field(False, description="batch norm after the predictor, for a ViT (the paper says always)")
    momentum: Annotated[Schedule, within(0, 1)] = Field(cosine(0.99, 1.0), description="of the teacher")
    freeze_patches: bool = Field(
        True, description="a ViT's patch projection stays as drawn; paper: steadier, and 1.7 % better for a ViT-B"
    )
    decay_all: bool = Field(False, description="weight decay on biases and norms too, as for the authors' ViTs")


def _view(blur: float, solarize: float) -> ViewSpec:
    order = ("jitter", "grayscale", "blur", "solarize", "flip")
    return ViewSpec(scale=(0.2, 1.0), blur_p=blur, solarize_p=solarize, order=order)


class MoCoV3(Method[MoCoV3Params]):
    """An Empirical Study of Training Self-Supervised Vision Transformers.

    The teacher gives keys of the global views, the student (with predictor) queries of all; each query is to find its
    own image's key among those of all images in the key's view. Mean over the pairs of different views, times two (on
    two views the sum of both directions) and times 2 temperature. Each view has batch-norm statistics of its own. The
    teacher moves before a step's keys are made, with that step's momentum; here at the end of the step before.

    A ViT begins and keeps its positions as the authors' do, with a frozen patch projection; they give it 12 heads.
    """

    Params = MoCoV3Params
    views = ViewRecipe(
        "2x224", (_view(1.0, 0.0), _view(0.1, 0.2)), _view(0.5, 0.0).model_copy(update={"scale": (0.05, 0.2)})
    )
    recipe: ClassVar[Data] = {
        "backbone": {"arch": "resnet50"},
        "optim": {"name": "lars", "lr": 0.6, "warmup_epochs": 10.0, "warmup_reaches": False, "weight_decay": 1e-6},
        "run": {"epochs": 100.0},
    }

    def __init__(self, params: MoCoV3Params, backbone: Backbone, context: Context) -> None:
        super().__init__(params)
        context.require_views(2)
        if backbone.is_vit:
            begin_as_moco_v3(backbone, params.freeze_patches)
        widths = [backbone.dim, *[params.hidden] * (params.head_layers - 1), params.out]
        self.student = Encoder(backbone, mlp(*widths, last_norm=True))
        last = params.predictor_norm
        self.predictor = mlp(params.out, params.hidden, params.out, last_norm=last, last_bias=False)
        self.teacher = EMA(self.student)
        without_drop_path(self.teacher)

    def forward(self, views: Views, step: Step) -> Output:
        temperature = self.params.temperature
        _, z = encode_each(self.student, views.all)  # (V, B, D)
        q = unit(torch.stack([self.predictor(view) for view in z]))
        with torch.no_grad():
            k = unit(encode_each(self.teacher.net, views.globals)[1])  # (G, B, D)
        loss = 2 * temperature * 2 * mean_of_others(info_nce(k, q, temperature))
        return Output(loss, {}, z[0].detach())

    def after_step(self, step: Step) -> None:
        self.teacher.update(self.student, self.params.momentum.at(step.next))

    def groups(self) -> list[Group]:
        return self.one_group() if self.params.decay_all else self.split_by_axes()

    recipes = """
        moco-v3-r50-100ep: {linear: 68.9, run: {batch_size: 4096}}
        moco-v3-r50-300ep: {linear: 72.8, optim: {lr: 0.3}, run: {batch_size: 4096, epochs: 300}}
        moco-v3-r50-1000ep:
          linear: 74.6
          method: {momentum: {base: 0.996}}
          optim: {lr: 0.3, weight_decay: 1.5e-6}
          run: {batch_size: 4096, epochs: 1000}
        moco-v3-vits16-300ep:
          linear: 73.2
          method: {temperature: 0.2, head_layers: 3, predictor_norm: true, decay_all: true}
          views: {multi_crop: 2x224@0.08-1}
          backbone: {arch: vit_small_patch16_224, args: {num_heads: 12}}
          optim: {name: adamw, lr: 1.5e-4, weight_decay: 0.1, warmup_epochs: 40, warmup_reaches: false}
          run: {batch_size: 4096, epochs: 300}
        moco-v3-vitb16-300ep:
          linear: 76.7
          method: {temperature: 0.2, head_layers: 3, predictor_norm: true, decay_all: true}
          views: {multi_crop: 2x224@0.08-1}
          backbone: {arch: vit_base_patch16_224}
          optim: {name: adamw, lr: 1.5e-4, weight_decay: 0.1, warmup_epochs: 40, warmup_reaches: false}
          run: {batch_size: 4096, epochs: 300}
        small:
          method: {hidden: 256, out: 64, temperature: 0.2, momentum: {base: 0.98}}
          backbone: {args: {zero_init_last: false}}
    """
    tiny: ClassVar[Data] = {"hidden": 16, "out": 8, "momentum": 0.9}

    @classmethod
    def chance(cls, params: MoCoV3Params, context: Context) -> Chance:
        return Chance(CONTRASTIVE, 4 * params.temperature * math.log(context.batch_size), "4 τ ln B")
