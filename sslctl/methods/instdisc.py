"""InstDisc: every image is a class of its own, whose weight is a memory of its embeddings (Wu et al. 2018)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ..layers.encoder import Encoder, encode
from ..layers.heads import mlp
from ..layers.precision import full_precision, unit
from ..runtime import distributed
from ..runtime.seeding import generator
from ..schedule import Step
from ..spec.schema import Data
from ..views.recipe import ViewRecipe
from .base import Chance, Context, Group, Method, Output, Params, Views
from .moco import MoCo

if TYPE_CHECKING:
    from ..backbones import Backbone

EPS = 1e-7


class InstDiscParams(Params):
    """Hyper-parameters of InstDisc; defaults of zhirongw/lemniscate.pytorch."""

    temperature: float = Field(0.07, gt=0, description="temperature of the similarities; 0.1 for CIFAR-10")
    out: int = Field(128, ge=1, description="width of the embedding")
    negatives: int = Field(4096, ge=0, description="images drawn to tell apart (NCE); 0 takes all (full softmax)")
    memory_momentum: float = Field(0.5, ge=0, lt=1, description="share of the old row when the memory moves")
    proximal: float = Field(0.0, ge=0, description="weight of the distance to the row; paper 30, authors' code none")


class InstDisc(Method[InstDiscParams]):
    """Unsupervised Feature Learning via Non-Parametric Instance Discrimination.

    Every view, local ones too, is to find the row of its image; the loss is their mean, for one view the paper's. The
    row then moves towards the mean of the global views' embeddings. NCE's constant Z is estimated from the first batch
    and kept; negatives are drawn with replacement and may be the image itself. The paper's proximal term is off, as
    in the authors' code.
    """

    Params = InstDiscParams
    views = ViewRecipe("1x224", MoCo.views.globals, MoCo.views.local)
    recipe: ClassVar[Data] = MoCo.recipe

    memory: Tensor
    normalizer: Tensor

    def __init__(self, params: InstDiscParams, backbone: Backbone, context: Context) -> None:
        super().__init__(params)
        self.student = Encoder(backbone, mlp(backbone.dim, params.out))
        limit = (3 / params.out) ** 0.5
        self.register_buffer("memory", torch.empty(context.images, params.out).uniform_(-limit, limit))
        self.register_buffer("normalizer", torch.zeros(()))

    def forward(self, views: Views, step: Step) -> Output:
        p = self.params
        z = unit(encode(self.student, views.all)[1])  # (V, B, D)
        if p.negatives:
            everyone = (len(views.index) * distributed.world_size(), p.negatives)
            g = generator(step, z.device)
            drawn = torch.randint(len(self.memory), everyone, generator=g, device=z.device)
            loss = self.nce(z, views.index, drawn.chunk(distributed.world_size())[distributed.rank()])
        else:
            logits = full_precision(F.linear)(z, self.memory.clone()) / p.temperature  # (V, B, n)
            loss = F.cross_entropy(logits.flatten(0, 1), views.index.repeat(len(z)))
        if p.proximal:
            loss = loss + p.proximal * (z - self.memory[views.index]).square().sum(-1).mean()
        self.remember(z[: len(views.globals)].mean(0), views.index)
        return Output(loss, {}, z[0].detach())

    def nce(self, z: Tensor, index: Tensor, drawn: Tensor) -> Tensor:
        """Return the noise-contrastive loss of embeddings (V, B, D) of images ``index`` against ``drawn`` (B, K)."""
        rows = self.memory[torch.cat([index[:, None], drawn], 1)]  # (B, 1 + K, D)
        scores = full_precision(torch.einsum)("vbd,bkd->vbk", z, rows).div(self.params.temperature).exp()
        with torch.no_grad():
            first = distributed.mean(scores.mean()) * len(self.memory)
            self.normalizer.copy_(torch.where(self.normalizer > 0, self.normalizer, first))
        model, noise = scores / self.normalizer, drawn.shape[1] / len(self.memory)
        own = model[..., 0] / (model[..., 0] + noise + EPS)
        others = noise / (model[..., 1:] + noise + EPS)
        return -(own.log() + others.log().sum(-1)).mean()

    @torch.no_grad()
    def remember(self, z: Tensor, index: Tensor) -> None:
        """Move the rows of images ``index`` towards ``z`` (B, D), and back to length one."""
        index, z = distributed.gather(index), distributed.gather(z)
        old = self.memory[index]
        self.memory[index] = unit(old.lerp(z.to(old.dtype), 1 - self.params.memory_momentum))

    def groups(self) -> list[Group]:
        return self.one_group()

    recipes = """
        instdisc-r50-200ep: {linear: 54.0}
        instdisc-cifar10-r18-200ep:
          method: {temperature: 0.1}
          views: {multi_crop: 1x32, flip: 0}
          backbone: {arch: resnet18}
          optim: {lr: 0.03, lr_scaling: none, weight_decay: 5e-4, milestones: [80, 120, 160]}
          run: {batch_size: 128}
        small:
          method: {out: 64, temperature: 0.2, negatives: 0}
          views: {solarize: 0}
          run: {epochs: 30}
    """
    tiny: ClassVar[Data] = {"out": 8, "negatives": 5}

    @classmethod
    def chance(cls, params: InstDiscParams, context: Context) -> Chance:
        normal = "falls as images are told apart; over the first epochs the memory is random, and little happens"
        known = context.images and not params.negatives
        return Chance(normal, math.log(context.images), "ln n") if known else Chance(normal)
