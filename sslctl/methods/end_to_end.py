"""End-to-end dictionary: MoCo's baseline, whose keys are the other images of the batch and take gradient."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from ..layers.encoder import Encoder, encode_in_groups, encode_shuffled
from ..layers.heads import mlp
from ..layers.losses import info_nce
from ..layers.precision import unit
from ..runtime.seeding import shuffle
from ..schedule import Step
from ..spec.schema import Data
from .base import CONTRASTIVE, Chance, Context, Group, Method, Output, Params, Views
from .moco import MoCo

if TYPE_CHECKING:
    from ..backbones import Backbone


class EndToEndParams(Params):
    """Hyper-parameters of the end-to-end baseline: those of MoCo v1 without queue and teacher."""

    temperature: float = Field(0.07, gt=0, description="temperature of the similarities")
    head_layers: int = Field(1, ge=1, le=8, description="Linears in the head")
    out: int = Field(128, ge=1, description="width of the embedding")
    norm_groups: int = Field(8, ge=1, description="parts of a batch with batch-norm statistics of their own; 1 leaks")


class EndToEnd(Method[EndToEndParams]):
    """Momentum Contrast, figure 2a: queries and keys are encoded by what is trained, and the batch is the dictionary.

    The last global view gives the keys; every other view, global or local, is a query, to find its own image's key
    among those of all images in the batch, on all processes. The paper lets one network or two encode; here it is one.
    Keys are shuffled among ``norm_groups``, as in MoCo (section 3.3). Its accuracy grows with the batch alone: the
    paper has it level with MoCo at equally many keys, and stop where the memory ends, at 1024.
    """

    Params = EndToEndParams
    views = MoCo.views
    recipe = MoCo.recipe

    shares_norm = False  # its groups are smaller than a process's batch

    def __init__(self, params: EndToEndParams, backbone: Backbone, context: Context) -> None:
        super().__init__(params)
        context.require_views(2)
        head = mlp(*[backbone.dim] * params.head_layers, params.out, norm=None, bias=True)
        self.student = Encoder(backbone, head)
        self.group = context.batch_size // params.norm_groups

    def forward(self, views: Views, step: Step) -> Output:
        q = unit(encode_in_groups(self.student, views.globals[:-1] + views.locals, self.group)[1])  # (V, B, D)
        order = shuffle(len(views.index), step, q.device)
        k = unit(encode_shuffled(self.student, views.globals[-1:], self.group, order))  # (1, B, D)
        loss = info_nce(k, q, self.params.temperature).mean()
        return Output(loss, {}, q[0].detach())

    def groups(self) -> list[Group]:
        return self.one_group()

    recipes = """
        small:
          method: {out: 64, temperature: 0.2, head_layers: 2, norm_groups: 4}
    """
    tiny: ClassVar[Data] = {"out": 8, "norm_groups": 2}

    @classmethod
    def chance(cls, params: EndToEndParams, context: Context) -> Chance:
        return Chance(CONTRASTIVE, math.log(context.batch_size), "ln B")
