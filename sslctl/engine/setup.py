"""From a spec to a training: opens the data, builds method, optimizer and loader."""

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
from ..backbones.compiling import Compiled, choose_compile, compile_backbones
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
from ..runtime.device import choose_device, choose_dtype, choose_workers, tune_for
from ..schedule import Schedule, Step
from ..spec.crops import CropPlan, Crops, parse_crops
from ..spec.derived import lr_schedule, steps_per_epoch, total_steps, weight_decay_schedule
from ..spec.parsing import check
from ..spec.schema import Spec
from ..views.augment import Augment
from ..views.evaluation import EvalTransform
from ..views.recipe import ViewPlan, plan_views
from .optimizers import build_optimizer

SMALL_IMAGE = 64  # px; below, the views shrink with the images


@dataclass
class RunInputs:
    """The opened data of a spec, and the views that fit it."""

    spec: Spec  # with what was chosen from the data
    train: Source
    val: Source
    plan: ViewPlan
    notes: list[str]


def open_inputs(spec: Spec) -> RunInputs:
    """Open the data of ``spec``, and choose what the spec leaves open: crop sizes for small images."""
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
    return RunInputs(spec, train, val, plan, notes)


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
    """Return the method with fresh weights, a function of the spec and its seed."""
    torch.manual_seed(spec.run.seed)
    backbone = build_backbone(spec.backbone, image_size(plan))
    cls = load_method(spec.method.name)
    params = check(cls.Params, spec.method_params(), "method")
    make: Any = cls
    total = total_steps(spec.run, images)
    context = Context(images, spec.run.batch_size, classes, len(plan.globals), len(plan.locals), total)
    method: Method[Any] = make(params, backbone, context)
    return method


@dataclass
class Training:
    """Everything that the loop needs."""

    spec: Spec
    source: Source
    method: Method[Any]
    model: nn.Module  # the method, or what wraps it on several processes
    optimizer: torch.optim.Optimizer
    augment: Augment
    loader: Callable[..., Loader]  # but for start_step
    lr: Schedule
    weight_decay: Schedule
    device: torch.device
    dtype: torch.dtype
    compiled: Compiled
    scaler: torch.amp.GradScaler
    total: int
    per_epoch: int
    log_every: int
    checkpoint_every: int
    meta: Meta
    probe: Callable[[Step], dict[str, float]] | None = None  # scores the encoder, and changes nothing
    probe_every: int = 1


def build(inputs: RunInputs) -> Training:
    """Build what the loop needs.

    Raises SpecError, DataError or MachineError where the spec, the data and the machine do not go together.
    """
    spec, plan, source = inputs.spec, inputs.plan, inputs.train
    if spec.run.threads is not None:
        torch.set_num_threads(spec.run.threads)
    device = choose_device(spec.run.device)
    tune_for(device)
    dtype = choose_dtype(spec.run.precision, device)
    check_batch(spec, len(source))
    method = build_method(spec, plan, len(source), len(source.classes)).to(device)
    if spec.run.channels_last if spec.run.channels_last is not None else method.student.backbone.channels_last:
        use_channels_last(method)
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
        model=method if distributed.world_size() == 1 else data_parallel(method, device),
        optimizer=build_optimizer(spec.optim, method),
        augment=augment,
        loader=make_loader(inputs, augment, total, device),
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
        meta=run_meta(inputs),
        probe=build_probe(inputs, method, device),
        probe_every=spec.run.probe_every or max(per_epoch, 1),
    )


def make_loader(inputs: RunInputs, augment: Augment, total: int, device: torch.device) -> Callable[..., Loader]:
    """Return what makes the loader of the training images, once ``start_step`` is known."""
    spec, source = inputs.spec, inputs.train
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


def use_channels_last(net: nn.Module) -> None:
    """Store the weights of convolutions with channels last, which is faster on most devices."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)


def data_parallel(method: nn.Module, device: torch.device) -> nn.Module:
    """Return ``method`` with gradients that are means over all processes."""
    return DistributedDataParallel(method, [device] if device.type == "cuda" else None, broadcast_buffers=False)


def build_probe(inputs: RunInputs, method: Method[Any], device: torch.device) -> Probe | None:
    """Return what scores the encoder while it trains; None where the spec does not ask for it."""
    run, plan = inputs.spec.run, inputs.plan
    if run.probe_data is None:
        return None
    train, test = open_probe(run.probe_data, run.probe_images, run.seed)
    transform = EvalTransform(image_size(plan), plan.mean, plan.std)
    return Probe(method.encoder(), train, test, transform, device, choose_workers(inputs.spec.data.workers))


def run_meta(inputs: RunInputs) -> Meta:
    """Return what every checkpoint of the run says beside its tensors."""
    plan, source = inputs.plan, inputs.train
    return Meta(
        method=inputs.spec.method.name,
        spec=inputs.spec.dump(),
        image=ImageSpec(size=image_size(plan), mean=plan.mean, std=plan.std),
        data=DataFacts(name=source.name, fingerprint=source.fingerprint(), images=len(source)),
    )


def check_batch(spec: Spec, images: int) -> None:
    """Raise SpecError or DataError where batches cannot be cut as the spec says."""
    size, parts = spec.run.batch_size, spec.optim.accumulate * distributed.world_size()
    if size % parts:
        raise SpecError(
            f"run.batch_size {size} is not a multiple of {parts} (optim.accumulate times processes)",
            f"--batch-size {max(parts, size // parts * parts)}",
        )
    if images < size:
        raise DataError(f"{images} images are fewer than a batch of {size}", f"--batch-size {max(2, images)}")
