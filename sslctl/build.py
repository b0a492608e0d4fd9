"""The one place where a spec meets classes: recipes resolved, data opened, method, optimizer and loader made."""

from __future__ import annotations

import itertools
import math
import os
import string
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from . import distributed
from .backbones import build_backbone
from .crops import Crops, CropPlan, parse_crops
from .data import open_pair
from .data.loader import Loader
from .data.source import Source
from .engine import Training
from .errors import MachineError, SpecError, closest
from .method import Facts, Method
from .methods import METHODS, load_method
from .optim import build_optimizer
from .schedule import Schedule, constant, cosine
from .spec import Data, OptimSpec, Spec
from .specfile import check, check_spec, merge, problems, refuse
from .views.augment import Augment
from .views.recipe import ViewPlan, plan_views

SMALL_IMAGE = 64
PAPER_SIZE = 224


def resolve(user: Data) -> Spec:
    """The whole spec: what the user said over the method's recipe, with every parameter of the method.

    Raises SpecError with every error at once.
    """
    found = problems(Spec, user)
    section = user.get("method")
    params = dict(section) if isinstance(section, dict) else {}
    name = params.pop("name", None)
    if isinstance(name, str) and name not in METHODS:
        found.append(f"method.name: '{name}' is no method{closest(name, list(METHODS))}; known: {', '.join(METHODS)}")
    if not isinstance(name, str) or name not in METHODS or (found and not params):
        raise refuse(found)
    method = load_method(name)
    params = merge(method.Params().model_dump(mode="json"), params)
    found += problems(method.Params, params, "method") + _optimizer_without_lr(user, method)
    if found:
        raise refuse(found)
    full = check(method.Params, params, "method").model_dump(mode="json")
    return check_spec(merge(_recipe(method, user), user, {"method": {"name": name, **full}}))


def _recipe(method: type[Method[Any]], user: Data) -> Data:
    """The method's recipe without what is meant for another length or another family of backbones than the user's."""
    recipe = dict(method.recipe)
    if {"steps", "epochs"} & user.get("run", {}).keys():
        recipe["run"] = {k: v for k, v in recipe.get("run", {}).items() if k != "epochs"}
    backbone = recipe.get("backbone", {})
    arch = user.get("backbone", {}).get("arch")
    if arch is not None and _family(arch) != _family(backbone.get("arch", "")):
        recipe.pop("backbone", None)
    return recipe


def _family(arch: str) -> str:
    """``resnet18`` -> ``resnet``: the models of timm whose further arguments are alike."""
    return arch[: len(arch) - len(arch.lstrip(string.ascii_lowercase))]


def _recipe_for(method: type[Method[Any]], user: Data) -> Data:
    """The recipe without what ``user`` makes pointless: its length, and a backbone of another family."""
    recipe = {k: dict(v) for k, v in method.recipe.items()}
    if {"steps", "epochs"} & user.get("run", {}).keys():
        recipe.get("run", {}).pop("epochs", None)
    theirs = recipe.get("backbone", {}).get("arch")
    mine = user.get("backbone", {}).get("arch", theirs)
    if theirs is not None and _family(mine) != _family(theirs):
        del recipe["backbone"]
    return recipe


def _family(arch: str) -> str:
    """``resnet`` of ``resnet18``, ``vit`` of ``vit_small_patch16_224``."""
    return "".join(itertools.takewhile(str.isalpha, arch))


def _optimizer_without_lr(user: Data, method: type[Method[Any]]) -> list[str]:
    """A learning rate is meant for one optimizer: who changes that must say this too."""
    mine, theirs = user.get("optim", {}), method.recipe.get("optim", {})
    if not isinstance(mine, dict) or mine.get("name", theirs.get("name")) == theirs.get("name") or "lr" in mine:
        return []
    return [f"optim.lr: must be given with optim.name '{mine['name']}'; the recipe's {theirs.get('lr')} is for {theirs['name']}"]


@dataclass
class Surroundings:
    """What a spec points at: the opened data, and the views that fit it."""

    spec: Spec  # with what was chosen from the data
    train: Source
    val: Source
    plan: ViewPlan
    notes: list[str]


def open_surroundings(spec: Spec) -> Surroundings:
    """Open the data and choose from it what the spec leaves open: crop sizes for small images."""
    train, val = open_pair(spec.data, spec.run.seed)
    recipe = load_method(spec.method.name).views
    notes: list[str] = []
    if spec.views.multi_crop is None:
        side = _typical_side(train)
        crops = parse_crops(recipe.crops)
        if side < SMALL_IMAGE:
            crops = _shrink(crops, side)
            notes.append(f"views: {crops}, the paper's {recipe.crops} scaled to images of {side} px (--multi-crop to choose)")
        spec = spec.model_copy(update={"views": spec.views.model_copy(update={"multi_crop": str(crops)})})
    return Surroundings(spec, train, val, plan_views(recipe, spec.views), notes)


def _typical_side(source: Source) -> int:
    some = np.linspace(0, len(source) - 1, min(9, len(source))).astype(int)
    return int(np.median([min(source.read(int(i)).shape[:2]) for i in some]))


def _shrink(plan: CropPlan, side: int) -> CropPlan:
    def scaled(crops: Crops) -> Crops:
        return crops._replace(size=max(8, 4 * round(crops.size * side / plan.globals.size / 4)))

    return CropPlan(scaled(plan.globals), None if plan.locals is None else scaled(plan.locals))


def image_size(plan: ViewPlan) -> int:
    return max(view.size for view in plan.globals)


def build_method(spec: Spec, plan: ViewPlan, images: int, classes: int = 0) -> Method[Any]:
    """The method with its fresh weights, a function of the spec and its seed."""
    torch.manual_seed(spec.run.seed)
    backbone = build_backbone(spec.backbone, image_size(plan))
    cls = load_method(spec.method.name)
    params = check(cls.Params, spec.method_params(), "method")
    make: Any = cls
    facts = Facts(images, spec.run.batch_size, classes, len(plan.globals), len(plan.locals))
    method: Method[Any] = make(params, backbone, facts)
    return method


def build(around: Surroundings) -> Training:
    """Everything that the loop needs.

    Raises SpecError, DataError or MachineError where the spec, the data and the machine do not go together.
    """
    spec, plan, source = around.spec, around.plan, around.train
    if spec.run.threads is not None:
        torch.set_num_threads(spec.run.threads)
    device = choose_device(spec.run.device)
    dtype = choose_dtype(spec.run.precision, device)
    if spec.run.batch_size % (spec.optim.accumulate * distributed.world_size()):
        raise SpecError(
            f"run.batch_size {spec.run.batch_size} is no multiple of optim.accumulate {spec.optim.accumulate} times "
            f"{distributed.world_size()} processes"
        )
    method = build_method(spec, plan, len(source), len(source.classes)).to(device)
    if spec.run.channels_last if spec.run.channels_last is not None else method.student.backbone.kind == "cnn":
        for module in method.modules():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    augment = Augment(plan, spec.run.seed)
    per_epoch = len(source) // spec.run.batch_size
    total = spec.run.steps or max(1, round((spec.run.epochs or 100) * per_epoch))

    def loader(start: int) -> Loader:
        return Loader(
            source,
            augment.geometric,
            batch_size=spec.run.batch_size,
            seed=spec.run.seed,
            start_step=start,
            total_steps=total,
            workers=choose_workers(spec.data.workers),
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            fail_on_bad=spec.data.bad_images == "fail",
        )

    loader(total).close()  # refuses a set smaller than a batch before any work
    return Training(
        spec=spec,
        source=source,
        method=method,
        model=method,
        optimizer=build_optimizer(spec.optim, method),
        augment=augment,
        loader=loader,
        lr=lr_schedule(spec.optim, spec.run.batch_size),
        weight_decay=weight_decay_schedule(spec.optim),
        device=device,
        dtype=dtype,
        scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
        total=total,
        per_epoch=per_epoch,
        log_every=spec.run.log_every or max(1, min(50, total // 100)),
        checkpoint_every=spec.run.checkpoint_every or max(per_epoch, 1),
        meta={
            "method": spec.method.name,
            "spec": spec.dump(),
            "image": {"size": image_size(plan), "mean": plan.mean, "std": plan.std},
            "data": {"name": source.name, "fingerprint": source.fingerprint(), "images": len(source)},
        },
    )


def lr_schedule(optim: OptimSpec, batch_size: int) -> Schedule:
    factor = {"linear": batch_size / 256, "sqrt": math.sqrt(batch_size / 256), "none": 1.0}[optim.lr_scaling]
    return Schedule(
        base=optim.lr * factor,
        end=optim.lr_end,
        shape=optim.schedule,
        warmup_from=optim.warmup_from,
        warmup_epochs=optim.warmup_epochs,
        warmup_reaches=optim.warmup_reaches,
        per_epoch=optim.per_epoch,
        milestones=optim.milestones,
    )


def weight_decay_schedule(optim: OptimSpec) -> Schedule:
    end = optim.weight_decay_end
    return constant(optim.weight_decay) if end is None else cosine(optim.weight_decay, end)


def choose_device(name: str) -> torch.device:
    """The device of that name; ``auto`` takes CUDA, then MPS, then the CPU. MachineError where it is not there."""
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if has_cuda else "mps" if has_mps else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise SpecError(f"--device '{name}': no such device", "one of auto, cpu, cuda, cuda:N, mps") from e
    missing = {"cuda": not has_cuda, "mps": not has_mps, "cpu": False}.get(device.type, True)
    if missing or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise MachineError(f"--device '{name}': not on this machine", "leave it out to take what is there")
    return device


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """What forward passes compute in; ``auto`` is bf16 on a GPU that has it and fp32 elsewhere."""
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def choose_workers(asked: int | None) -> int:
    """``asked``, or a process for every CPU that this one may use but one."""
    if asked is not None:
        return asked
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, available - 1))
