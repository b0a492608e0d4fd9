"""The smallest method with an optimizer, after some real steps, and what a checkpoint says of it."""

from __future__ import annotations

from typing import Any

import torch

from sslctl.backbones import build_backbone
from sslctl.engine.optimizers import build_optimizer
from sslctl.methods import load_method
from sslctl.methods.base import Context, Method, Views
from sslctl.runs.meta import DataFacts, ImageSpec, Meta
from sslctl.schedule import Step
from sslctl.spec.parsing import check, check_spec
from sslctl.spec.schema import BackboneSpec, OptimSpec

USER = {
    "data": {"path": "photos"},
    "method": {"name": "moco-v2"},
    "backbone": {"arch": "resnet18", "args": {"channels": [4, 4, 8, 8], "layers": [1, 1, 1, 1]}},
}


def small_run(seed: int, steps: int = 2) -> tuple[Method[Any], torch.optim.Optimizer]:
    """Return MoCo v2 on a narrow ResNet with AdamW, ``steps`` steps after its beginning."""
    torch.manual_seed(seed)
    cls: Any = load_method("moco-v2")
    backbone = build_backbone(BackboneSpec.model_validate(USER["backbone"]), 32)
    method: Method[Any] = cls(check(cls.Params, cls.tiny), backbone, Context(100, 6))
    optimizer = build_optimizer(OptimSpec(name="adamw"), method)
    for index in range(steps):
        crops = [torch.randn(6, 3, 32, 32) for _ in range(2)]
        method(Views(crops, [], torch.arange(6), torch.zeros(6)), Step(index, 10, 5)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return method, optimizer


def meta(**changes: Any) -> Meta:
    """Return what a run's setup would write, with ``changes``."""
    image = ImageSpec(size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    facts = Meta(spec=check_spec(USER).dump(), image=image, data=DataFacts(name="photos", images=100))
    return facts.but(method="moco-v2", step=2, **changes)
