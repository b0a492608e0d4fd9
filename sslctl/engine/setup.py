"""The one place where a spec meets classes: data opened, method, optimizer and loader made."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..backbones import build_backbone
from ..backbones.compiling import choose_compile, compile_backbones
from ..data import open_pair
from ..data.in_memory import in_batches
from ..data.loader import Loader
from ..data.source import FileSource, Source
from ..data.unreadable import next_readable
from ..errors import DataError, SpecError
from ..evaluate.online_probe import Probe, open_probe
from ..layers.batch_norm import share_statistics
from ..methods import load_method
from ..methods.base import Context, Method
from ..runs.meta import DataFacts, ImageSpec, Meta
from ..runtime import distributed
from ..runtime.device import choose_device, choose_dtype, choose_workers, settle
from ..spec.crops import CropPlan, Crops, parse_crops
from ..spec.derived import lr_schedule, steps_per_epoch, total_steps, weight_decay_schedule
from ..spec.parsing import check
from ..spec.schema import Spec
from ..views.augment import Augment
from ..views.evaluation import EvalTransform
from ..views.recipe import ViewPlan, plan_views
from .optimizers import build_optimizer
from .training import Training

SMALL_IMAGE = 64


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
    train, val = open_pair(spec.data, spec.run.seed, labelled=False)
    recipe = load_method(spec.method.name).views
    notes = list(train.notes)
    side = _typical_side(train)
    if spec.views.multi_crop is None:
        crops = parse_crops(recipe.crops)
        if side < SMALL_IMAGE:
            crops = _shrink(crops, side)
            notes.append(f"views: {crops}, the paper's {recipe.crops} at the scale of {side} px (or --multi-crop)")
        spec = spec.model_copy(update={"views": spec.views.model_copy(update={"multi_crop": str(crops)})})
    plan = plan_views(recipe, spec.views)
    if isinstance(train, FileSource):
        if spec.data.decode == "reduced":
            train = train.reduced(plan.resolution)
        elif side >= 2 * plan.resolution:
            faster = "--set data.decode=reduced reads JPEGs faster, `sslctl data pack` everything"
            notes.append(f"images have {side} px and views need {plan.resolution}: {faster}")
    return Surroundings(spec, train, val, plan, notes)


def _typical_side(source: Source) -> int:
    some = np.linspace(0, len(source) - 1, min(9, len(source))).astype(int)
    return int(np.median([min(next_readable(source, int(i))[1].shape[:2]) for i in some]))


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
    total = total_steps(spec.run, images)
    context = Context(images, spec.run.batch_size, classes, len(plan.globals), len(plan.locals), total)
    method: Method[Any] = make(params, backbone, context)
    return method


def build(around: Surroundings) -> Training:
    """Everything that the loop needs.

    Raises SpecError, DataError or MachineError where the spec, the data and the machine do not go together.
    """
    spec, plan, source = around.spec, around.plan, around.train
    if spec.run.threads is not None:
        torch.set_num_threads(spec.run.threads)
    device = choose_device(spec.run.device)
    settle(device)
    dtype = choose_dtype(spec.run.precision, device)
    refuse_batch(spec, len(source))
    method = build_method(spec, plan, len(source), len(source.classes)).to(device)
    if spec.run.channels_last if spec.run.channels_last is not None else method.student.backbone.kind == "cnn":
        convolve_channels_last(method)
    if distributed.world_size() > 1 and method.shares_norm:
        share_statistics(method, device)
    augment = Augment(plan, spec.run.seed)
    per_epoch, total = steps_per_epoch(spec.run, len(source)), total_steps(spec.run, len(source))
    compiled = choose_compile(spec.run.compile, device, total)
    if compiled:
        compile_backbones(method, compiled)
    return Training(
        spec=spec,
        source=source,
        method=method,
        model=method if distributed.world_size() == 1 else in_step(method, device),
        optimizer=build_optimizer(spec.optim, method),
        augment=augment,
        loader=load_by(around, augment, total, device),
        lr=lr_schedule(spec.optim, spec.run.batch_size),
        weight_decay=weight_decay_schedule(spec.optim),
        device=device,
        dtype=dtype,
        compiled=compiled,
        scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
        total=total,
        per_epoch=per_epoch,
        log_every=spec.run.log_every or max(1, min(50, total // 100)),
        checkpoint_every=spec.run.checkpoint_every or max(per_epoch, 1),
        meta=describe(around),
        probe=build_probe(around, method, device),
        probe_every=spec.run.probe_every or max(per_epoch, 1),
    )


def load_by(around: Surroundings, augment: Augment, total: int, device: torch.device) -> Callable[..., Loader]:
    """Batches of the training images; what is left to say is ``start_step``."""
    spec, source = around.spec, around.train
    return functools.partial(
        Loader,
        source,
        augment.geometric,
        batch_size=spec.run.batch_size,
        seed=spec.run.seed,
        total_steps=total,
        workers=choose_workers(spec.data.workers),
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        fail_on_bad=spec.data.bad_images == "fail",
        sizes=[view.size for view in augment.plan.all],
        whole=in_batches(source, device),
    )


def convolve_channels_last(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)


def in_step(method: nn.Module, device: torch.device) -> nn.Module:
    """``method`` whose gradients are the means over all processes."""
    return DistributedDataParallel(method, [device] if device.type == "cuda" else None, broadcast_buffers=False)


def build_probe(around: Surroundings, method: Method[Any], device: torch.device) -> Probe | None:
    """What scores the encoder while it trains, where the spec asks for it."""
    run, plan = around.spec.run, around.plan
    if run.probe_data is None:
        return None
    train, test = open_probe(run.probe_data, run.probe_images, run.seed)
    transform = EvalTransform(image_size(plan), plan.mean, plan.std)
    return Probe(method.encoder(), train, test, transform, device, choose_workers(around.spec.data.workers))


def describe(around: Surroundings) -> Meta:
    """What a checkpoint says about its making and its use, beside the tensors."""
    plan, source = around.plan, around.train
    return Meta(
        method=around.spec.method.name,
        spec=around.spec.dump(),
        image=ImageSpec(size=image_size(plan), mean=plan.mean, std=plan.std),
        data=DataFacts(name=source.name, fingerprint=source.fingerprint(), images=len(source)),
    )


def refuse_batch(spec: Spec, images: int) -> None:
    """SpecError or DataError where batches cannot be cut as the spec says."""
    size, parts = spec.run.batch_size, spec.optim.accumulate * distributed.world_size()
    if size % parts:
        raise SpecError(
            f"run.batch_size {size} is no multiple of {parts} (optim.accumulate times processes)",
            f"--batch-size {max(parts, size // parts * parts)}",
        )
    if images < size:
        raise DataError(f"{images} images are fewer than a batch of {size}", f"--batch-size {max(2, images)}")
