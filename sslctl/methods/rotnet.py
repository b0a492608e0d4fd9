"""RotNet: by how many quarter turns was the image turned? (Gidaris et al. 2018)"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..layers.encoder import Encoder, encode
from ..schedule import Step
from ..spec.schema import Data
from ..views.recipe import ViewRecipe, ViewSpec
from .base import PRETEXT, Chance, Context, Group, Method, Output, Params, Views

if TYPE_CHECKING:
    from ..backbones import Backbone


class RotNetParams(Params):
    """Hyper-parameters of RotNet; defaults of gidariss/FeatureLearningRotNet."""

    turns: int = Field(4, ge=2, le=4, description="rotations to tell apart, by 90 degrees each; paper: 4 are best")


_VIEW = ViewSpec(scale=(0.765, 1.0), ratio=(1.0, 1.0), jitter_p=0.0, grayscale_p=0.0, blur_p=0.0)


class RotNet(Method[RotNetParams]):
    """Unsupervised Representation Learning by Predicting Image Rotations.

    Every view, local ones too, goes through the network in all its rotations at once, counter-clockwise by k quarter
    turns, and k is to be told from each: the mean cross-entropy. Views are turned after they are cropped and flipped.
    The authors crop 224 px from images of 256; the schedule is that of their code (50 epochs; the paper says 30). Their
    network is an AlexNet; where that is a ResNet-50, others have it at 48.2 % (VISSL).
    """

    Params = RotNetParams
    views = ViewRecipe("1x224", (_VIEW,), _VIEW.model_copy(update={"scale": (0.05, 0.14)}))
    recipe: ClassVar[Data] = {
        "backbone": {"arch": "resnet50", "args": {"zero_init_last": False}},
        "optim": {
            "name": "sgd", "lr": 0.01, "schedule": "step", "milestones": [15, 30, 45], "warmup_epochs": 0.0,
            "weight_decay": 5e-4, "nesterov": True,
        },
        "run": {"epochs": 50.0},
    }  # fmt: skip

    def __init__(self, params: RotNetParams, backbone: Backbone, context: Context) -> None:
        super().__init__(params)
        self.student = Encoder(backbone, nn.Linear(backbone.dim, params.turns))

    def forward(self, views: Views, step: Step) -> Output:
        turned = [x for view in views.all for x in rotations(view, self.params.turns)]
        h, logits = encode(self.student, turned)  # (V * turns, B, D), (V * turns, B, turns)
        turns = torch.arange(self.params.turns, device=logits.device)
        targets = turns.repeat(len(views.all)).repeat_interleave(logits.shape[1])
        flat = logits.flatten(0, 1)
        accuracy = (flat.detach().argmax(-1) == targets).float().mean()
        return Output(F.cross_entropy(flat, targets), {"accuracy": accuracy}, h[0].detach())

    def groups(self) -> list[Group]:
        return self.one_group()

    recipes = """
        rotnet-r50-105ep:
          linear: 48.2
          optim: {lr: 0.1, lr_scaling: linear, milestones: [30, 60, 90, 100], weight_decay: 1e-4, warmup_epochs: 5}
          run: {epochs: 105}
    """

    compares_views = False
    health_on_features = True

    @classmethod
    def chance(cls, params: RotNetParams, context: Context) -> Chance:
        return Chance(PRETEXT, math.log(params.turns), "ln turns")


def rotations(x: Tensor, turns: int) -> list[Tensor]:
    """Turn ``x`` (B, C, S, S) counter-clockwise by 0, 1, … quarter turns."""
    return [torch.rot90(x, k, (2, 3)) for k in range(turns)]
