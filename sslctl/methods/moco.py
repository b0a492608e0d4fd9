"""MoCo v1 and v2: find the key of one's own image among a queue of keys from a slow encoder (He et al. 2019)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field

from ..layers.buffers import Queue
from ..layers.encoder import Encoder, encode_in_groups, encode_shuffled
from ..layers.heads import mlp
from ..layers.losses import mean_of_others, queue_contrast
from ..layers.precision import unit
from ..layers.teacher import EMA
from ..runtime.seeding import shuffle
from ..schedule import Schedule, Step, constant, within
from ..spec.schema import Data
from ..views.recipe import ViewRecipe, ViewSpec
from .base import CONTRASTIVE, Chance, Context, Group, Method, Output, Params, Views

if TYPE_CHECKING:
    from ..backbones import Backbone


class MoCoParams(Params):
    """Hyper-parameters of MoCo; defaults of facebookresearch/moco, main_moco.py."""

    temperature: float = Field(0.07, gt=0, description="temperature of the similarities; 0.2 in v2")
    head_layers: int = Field(1, ge=1, le=8, description="Linears in the head: 1 in v1, 2 in v2")
    out: int = Field(128, ge=1, description="width of the embedding")
    queue: int = Field(65536, ge=1, description="keys to tell apart, at most one an image; the more, the better")
    momentum: Annotated[Schedule, within(0, 1)] = Field(
        constant(0.999), description="of the teacher; paper: 0 fails, 0.9 55.2 %, 0.99 57.8, 0.999 59.0, 0.9999 58.9"
    )
    symmetric: bool = Field(False, description="every global view gives keys, not the last alone; twice the work")
    norm_groups: int = Field(8, ge=1, description="parts of a batch with batch-norm statistics of their own; 1 leaks")


_ORDER = ("grayscale", "jitter", "flip", "blur", "solarize")
_V1 = ViewSpec(scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.4), jitter_p=1.0, blur_p=0.0, order=_ORDER)
_V2 = ViewSpec(scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), order=("jitter", "grayscale", "blur", "solarize", "flip"))
_SMALL = {"scale": (0.05, 0.2)}


class MoCo(Method[MoCoParams]):
    """Momentum Contrast for Unsupervised Visual Representation Learning.

    The last global view gives the key, by the teacher; every other view, global or local, is a query that is to find
    it among the queue. ``symmetric``: every global view gives keys, queries are all views but that one, and the losses
    of the key views add up (the authors' notebook for CIFAR-10). The queue is consulted, then takes the batch's keys.

    Batch norm is computed within ``norm_groups`` parts of the batch, as if on so many GPUs, and keys are shuffled
    before: else a query and its key, which share a batch, tell each other by its statistics (section 3.3).
    """

    Params = MoCoParams
    views = ViewRecipe("2x224", (_V1,), _V1.model_copy(update=_SMALL))
    recipe: ClassVar[Data] = {
        "backbone": {"arch": "resnet50", "args": {"zero_init_last": False}},
        "optim": {
            "name": "sgd", "lr": 0.03, "schedule": "step", "milestones": [120, 160], "warmup_epochs": 0.0,
            "weight_decay": 1e-4,
        },
        "run": {"epochs": 200.0},
    }  # fmt: skip

    shares_norm = False  # its groups are smaller than a process's batch

    def __init__(self, params: MoCoParams, backbone: Backbone, context: Context) -> None:
        super().__init__(params)
        context.require_views(2)
        head = mlp(*[backbone.dim] * params.head_layers, params.out, norm=None, bias=True)
        self.student = Encoder(backbone, head)
        self.teacher = EMA(self.student)
        self.queue = Queue(min(params.queue, context.images), params.out)
        self.group = context.batch_size // params.norm_groups

    def forward(self, views: Views, step: Step) -> Output:
        p = self.params
        first = 0 if p.symmetric else len(views.globals) - 1  # global views from here on give keys
        sources = views.all if p.symmetric else views.globals[:-1] + views.locals
        q = unit(encode_in_groups(self.student, sources, self.group)[1])  # (V, B, D)
        with torch.no_grad():
            order = shuffle(len(views.index), step, q.device)
            k = unit(encode_shuffled(self.teacher.encoder, views.globals[first:], self.group, order))  # (T, B, D)

        losses = queue_contrast(k, q, self.queue.keys.clone(), p.temperature)  # (T, V)
        loss = len(k) * mean_of_others(losses) if p.symmetric else losses.mean()
        with torch.no_grad():
            nearest = (q[0] @ self.queue.keys.T).amax(-1)
            accuracy = ((q[0] * k[-1]).sum(-1) > nearest).float().mean()
        for keys in k:
            self.queue.push(keys)
        return Output(loss, {"accuracy": accuracy, "queue_age": self.queue.age(step, k)}, q[0].detach())

    def after_step(self, step: Step) -> None:
        self.teacher.update(self.student, self.params.momentum.at(step))

    def groups(self) -> list[Group]:
        return self.one_group()

    recipes = """
        moco-v1-r50-200ep: {linear: 60.6}
        small:
          method: {out: 64, temperature: 0.2, queue: 1024, momentum: 0.98, norm_groups: 4, symmetric: true}
    """
    tiny: ClassVar[Data] = {"out": 8, "queue": 18, "momentum": 0.9, "norm_groups": 2}

    @classmethod
    def chance(cls, params: MoCoParams, context: Context) -> Chance:
        keys = min(params.queue, context.images or params.queue)
        normal = f"{CONTRASTIVE}; may rise while the queue fills with real keys"
        return Chance(normal, math.log(1 + keys), "ln(1 + queue)")


class MoCoV2Params(MoCoParams):
    """Hyper-parameters of MoCo v2: ``--mlp --moco-t 0.2 --aug-plus --cos`` of main_moco.py."""

    temperature: float = Field(0.2, gt=0, description="temperature of the similarities")
    head_layers: int = Field(2, ge=1, le=8, description="Linears in the head: 1 in v1, 2 in v2")


class MoCoV2(MoCo):
    """Improved Baselines with Momentum Contrastive Learning: MoCo with SimCLR's head, blur and cosine schedule."""

    Params = MoCoV2Params
    views = ViewRecipe("2x224", (_V2,), _V2.model_copy(update=_SMALL))
    recipe: ClassVar[Data] = {
        "backbone": MoCo.recipe["backbone"],
        "optim": {"name": "sgd", "lr": 0.03, "per_epoch": True, "warmup_epochs": 0.0, "weight_decay": 1e-4},
        "run": {"epochs": 200.0},
    }

    recipes = """
        moco-v2-r50-200ep: {linear: 67.5}
        moco-v2-r50-800ep: {linear: 71.1, knn: 61.9, run: {epochs: 800}}
        small:
          method: {out: 64, queue: 1024, momentum: 0.98, norm_groups: 4, symmetric: true}
    """
    tiny: ClassVar[Data] = {"out": 8, "queue": 18, "momentum": 0.9, "norm_groups": 2}
