"""Seven methods put together from lightly's parts (heads, losses, momentum updates), as its examples do it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from lightly import loss as losses
from lightly.models import modules as heads
from lightly.models.utils import update_momentum
from torch import Tensor, nn

from sslctl.backbones import Backbone
from sslctl.layers.encoder import Encoder
from sslctl.methods.base import Group, Method, Output, Views
from sslctl.schedule import Step


class Theirs(Method[Any]):
    """lightly's parts as an objective; ``objective`` is what lightly's example does with two views in a step."""

    alike = False  # biases and norms are decayed too

    def __init__(self, params: Any, backbone: Backbone, head: nn.Module) -> None:
        super().__init__(params)
        self.student = Encoder(backbone, head)

    def forward(self, views: Views, step: Step) -> Output:
        first, second = views.globals
        loss, embedding = self.objective(first, second, step)
        return Output(loss, {}, embedding.detach())

    def objective(self, first: Tensor, second: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        raise NotImplementedError  # each method below has its own

    def groups(self) -> list[Group]:
        return self.one_group()() if self.alike else self.split_by_axes()


class WithTeacher(Theirs):
    """lightly moves the teacher at the start of a step, before it is used; here it begins as a copy, as ours does."""

    def __init__(self, params: Any, backbone: Backbone, make_head: Callable[[], nn.Module]) -> None:
        super().__init__(params, backbone, make_head())
        self.teacher = Encoder(copy.deepcopy(backbone), make_head())
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)

    def move(self, step: Step) -> None:
        update_momentum(self.student, self.teacher, self.params.momentum.at(step))


class SimCLR(Theirs):
    def __init__(self, p: Any, backbone: Backbone) -> None:
        super().__init__(p, backbone, heads.SimCLRProjectionHead(backbone.dim, backbone.dim, p.out))
        self.criterion = single(losses.NTXentLoss(p.temperature))

    def objective(self, first: Tensor, second: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        z = self.student(first)
        return self.criterion(z, self.student(second)), z


class MoCo(WithTeacher):
    alike = True

    def __init__(self, p: Any, backbone: Backbone) -> None:
        sizes = (backbone.dim, backbone.dim, p.out)
        super().__init__(p, backbone, lambda: heads.MoCoProjectionHead(*sizes, num_layers=2, batch_norm=False))
        self.criterion = single(losses.NTXentLoss(p.temperature, memory_bank_size=(p.queue, p.out)))

    def objective(self, first: Tensor, second: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        self.move(step)
        z = self.student(first)
        with torch.no_grad():
            keys = self.teacher(second)
        return self.criterion(z, keys), z


class BYOL(WithTeacher):
    def __init__(self, p: Any, backbone: Backbone) -> None:
        super().__init__(p, backbone, lambda: heads.BYOLProjectionHead(backbone.dim, p.hidden, p.out))
        self.predictor = heads.BYOLPredictionHead(p.out, p.hidden, p.out)
        self.criterion = single(losses.NegativeCosineSimilarity())

    def objective(self, first: Tensor, second: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        self.move(step)
        z = self.student(first)
        p1, p2 = self.predictor(z), self.predictor(self.student(second))
        with torch.no_grad():
            z1, z2 = self.teacher(first), self.teacher(second)
        return 0.5 * (self.criterion(p1, z2) + self.criterion(p2, z1)), z


class SimSiam(Theirs):
    def __init__(self, p: Any, backbone: Backbone) -> None:
        super().__init__(p, backbone, heads.SimSiamProjectionHead(backbone.dim, backbone.dim, p.out))
        self.predictor = heads.SimSiamPredictionHead(p.out, p.bottleneck, p.out)
        self.criterion = single(losses.NegativeCosineSimilarity())

    def objective(self, first: Tensor, second: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        z1, z2 = self.student(first), self.student(second)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        return 0.5 * (self.criterion(p1, z2.detach()) + self.criterion(p2, z1.detach())), z1

    def groups(self) -> list[Group]:
        """The predictor's learning rate is constant, as in the paper and in ours."""
        named = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        mine = [item for item in named if item[0].startswith("predictor.")]
        return [Group([x for x in named if x not in mine]), Group(mine, scheduled=False)]


class BarlowTwins(Theirs):
    def __init__(self, p: Any, backbone: Backbone) -> None:
        super().__init__(p, backbone, heads.BarlowTwinsProjectionHead(backbone.dim, p.out, p.out))
        self.criterion = single(losses.BarlowTwinsLoss(lambda_param=p.redundancy))

    def objective(self, first: Tensor, second: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        z = self.student(first)
        return self.criterion(z, self.student(second)), z


class SwAV(Theirs):
    alike = True

    def __init__(self, p: Any, backbone: Backbone) -> None:
        super().__init__(p, backbone, heads.SwaVProjectionHead(backbone.dim, p.hidden, p.out))
        self.prototypes = heads.SwaVPrototypes(p.out, p.prototypes)
        self.criterion = losses.SwaVLoss(p.temperature, 3, p.epsilon)

    def objective(self, first: Tensor, second: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        self.prototypes.normalize()
        z = self.student(first), self.student(second)
        with torch.autocast(first.device.type, enabled=False):
            scores = [self.prototypes(F.normalize(x.float(), dim=1)) for x in z]
            return self.criterion(scores, []), z[0]

    def after_backward(self, step: Step) -> None:
        if step.index < round(self.params.freeze_prototypes_epochs * step.per_epoch):
            for p in self.prototypes.parameters():
                p.grad = None


class DINO(WithTeacher):
    def __init__(self, p: Any, backbone: Backbone) -> None:
        sizes = (backbone.dim, p.hidden, p.bottleneck, p.prototypes)
        head = functools.partial(heads.DINOProjectionHead, *sizes, batch_norm=p.head_norm, freeze_last_layer=1)
        super().__init__(p, backbone, head)
        temperature, momentum = p.student_temperature, p.center_momentum
        self.criterion = losses.DINOLoss(p.prototypes, student_temp=temperature, center_momentum=momentum)

    def objective(self, first: Tensor, second: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        self.move(step)
        with torch.no_grad():
            targets = self.teacher(first), self.teacher(second)
        h = self.student.backbone(first)
        outputs = self.student.head(h), self.student(second)
        with torch.autocast(first.device.type, enabled=False):
            t, s = ([x.float() for x in pair] for pair in (targets, outputs))
            return self.criterion(t, s, self.params.teacher_temperature.at(step)), h

    def after_backward(self, step: Step) -> None:
        self.student.head.cancel_last_layer_gradients(step.epoch)

    def encoder(self) -> nn.Module:
        return self.teacher.backbone


THEIRS: dict[str, Callable[[Any, Backbone], Theirs]] = {
    "simclr": SimCLR,
    "moco-v2": MoCo,
    "byol": BYOL,
    "simsiam": SimSiam,
    "barlow-twins": BarlowTwins,
    "swav": SwAV,
    "dino": DINO,
}


def single(criterion: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """``criterion`` of two tensors in single precision, as ours computes its losses."""

    def run(a: Tensor, b: Tensor) -> Tensor:
        with torch.autocast(a.device.type, enabled=False):
            loss: Tensor = criterion(a.float(), b.float())
            return loss

    return run


def crops_apart(method: Theirs) -> Theirs:
    """``method``, of DINO's and SwAV's with any multi-crop: a forward pass for each view, as lightly's examples do."""
    if isinstance(method, DINO):
        method.forward = functools.partial(_dino_crops, method)  # type: ignore[method-assign]  # this instance only
    elif isinstance(method, SwAV):
        method.forward = functools.partial(_swav_crops, method)  # type: ignore[method-assign]  # this instance only
    return method


def _dino_crops(method: DINO, views: Views, step: Step) -> Output:
    method.move(step)
    with torch.no_grad():
        targets = [method.teacher(view) for view in views.globals]
    outputs = [method.student(view) for view in views.all]
    loss = method.criterion(targets, outputs, method.params.teacher_temperature.at(step))
    return Output(loss, {}, outputs[0].detach())


def _swav_crops(method: SwAV, views: Views, step: Step) -> Output:
    method.prototypes.normalize()
    scores = [method.prototypes(F.normalize(method.student(view), dim=1)) for view in views.all]
    n = len(views.globals)
    return Output(method.criterion(scores[:n], scores[n:]), {}, scores[0].detach())
