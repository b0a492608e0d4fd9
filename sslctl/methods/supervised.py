"""Supervised cross-entropy: learn the labels, the baseline that every comparison needs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import nn

from ..errors import DataError
from ..layers.encoder import Encoder, encode
from ..schedule import Step
from ..spec.schema import Data
from ..views.recipe import ViewRecipe, ViewSpec
from .base import Chance, Context, Group, Method, Output, Params, Views

if TYPE_CHECKING:
    from ..backbones import Backbone

HINT = "one folder for each class, or a method that needs none, such as --method simclr"


class SupervisedParams(Params):
    """Hyper-parameters of supervised training."""

    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all classes")


_VIEW = ViewSpec(jitter_p=0.0, grayscale_p=0.0, blur_p=0.0)


class Supervised(Method[SupervisedParams]):
    """Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour; its recipe, in which a ResNet-50 reaches 76.3 %.

    Every view, local ones too, is classified by a linear layer; the loss is their mean cross-entropy. One view and no
    more is standard. Raises DataError where the images have no labels.
    """

    Params = SupervisedParams
    views = ViewRecipe("1x224", (_VIEW,), _VIEW.model_copy(update={"scale": (0.05, 0.14)}))
    recipe: ClassVar[Data] = {
        "backbone": {"arch": "resnet50"},
        "optim": {
            "name": "sgd", "lr": 0.1, "schedule": "step", "milestones": [30, 60, 80], "warmup_epochs": 5.0,
            "weight_decay": 1e-4, "nesterov": True,
        },
        "run": {"epochs": 90.0},
    }  # fmt: skip

    def __init__(self, params: SupervisedParams, backbone: Backbone, context: Context) -> None:
        super().__init__(params)
        if context.classes < 2:
            raise DataError(f"method supervised: the images have {context.classes or 'no'} classes to tell apart", HINT)
        self.student = Encoder(backbone, nn.Linear(backbone.dim, context.classes))

    def forward(self, views: Views, step: Step) -> Output:
        if views.labels is None:
            raise DataError("method supervised: the images have no labels", HINT)
        h, logits = encode(self.student, views.all)  # (V, B, D), (V, B, classes)
        targets = views.labels.repeat(len(logits))
        loss = F.cross_entropy(logits.flatten(0, 1), targets, label_smoothing=self.params.label_smoothing)
        accuracy = (logits.detach().argmax(-1) == views.labels).float().mean()
        return Output(loss, {"accuracy": accuracy}, h[0].detach())

    def groups(self) -> list[Group]:
        return self.one_group()

    recipes = """
        supervised-r50-90ep: {linear: 76.3}
        small:
          views: {scale: [0.7, 1]}
    """

    compares_views = False
    health_on_features = True

    @classmethod
    def chance(cls, params: SupervisedParams, context: Context) -> Chance:
        normal = "starts at ln(classes); near 0, the training images are known by heart"
        return Chance(normal, math.log(context.classes), "ln classes") if context.classes else Chance(normal)
