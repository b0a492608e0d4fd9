"""``sslctl linear-eval``: how well a linear classifier reads classes off frozen features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SpecError
from . import output
from .evaluating import Experiment, finish, open_experiment, progress
from .options import (
    BatchSize,
    Device,
    Download,
    FailUnder,
    Json,
    LabelledData,
    Model,
    Precision,
    Seed,
    ValData,
    Workers,
)

if TYPE_CHECKING:
    from ..evaluate.features import Features
    from ..evaluate.score import Score
    from .evaluating import Evaluate


def linear_eval(
    model: Model,
    data: LabelledData = None,
    val_data: ValData = None,
    protocol: Annotated[
        str, typer.Option(help="lbfgs, or a paper's: dinov2, moco, simclr, dino, swav, simsiam, barlow.")
    ] = "lbfgs",
    epochs: Annotated[
        float | None, typer.Option(min=0.001, help="Length of a paper's protocol, if not its own.", show_default=False)
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Part of the labels: 0.01, 10-per-class, or a list of images.", show_default=False),
    ] = None,
    draws: Annotated[
        int | None, typer.Option(min=1, help="Draws of that part, averaged; by default 5.", show_default=False)
    ] = None,
    baselines: Annotated[bool, typer.Option("--baselines", help="Score raw pixels and random weights too.")] = False,
    fail_under: FailUnder = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "fp32",  # a score should not depend on what the CPU can do
    workers: Workers = None,
    batch_size: BatchSize = 256,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Score an encoder by a linear classifier.

    By default logistic regression by L-BFGS on standardised frozen features; its penalty is chosen on a part of the
    training images. A paper's protocol trains by SGD on augmented images; where it has several rates or features, all
    are trained in one pass, and one is chosen on a part of the training images. The test images decide nothing.

    Examples:

      sslctl linear-eval runs/swav-resnet18-demo-1a2b3c

      sslctl linear-eval last.safetensors --data labelled/ --json

      sslctl linear-eval runs/dino-vit_small_patch16_224-photos-4d5e6f --data labelled/ --protocol dinov2

      sslctl linear-eval last.safetensors --data labelled/ --labels 0.01

      sslctl linear-eval last.safetensors --data train/ --val-data test/ --fail-under 0.8
    """
    if protocol != "lbfgs" and (labels or draws or baselines):
        raise SpecError("--labels, --draws and --baselines go with --protocol lbfgs", "leave them out")
    if protocol == "lbfgs" and epochs is not None:
        raise SpecError("--epochs: L-BFGS has none", "leave it out, or give a --protocol")
    if protocol != "lbfgs":
        from ..evaluate.protocols import find_protocol

        find_protocol(protocol)  # a wrong name is answered before any image is looked at
    experiment = open_experiment(
        model,
        data,
        val_data,
        seed=seed,
        download=download,
        device=device,
        precision=precision,
        workers=workers,
        batch_size=batch_size,
    )

    if protocol == "lbfgs":
        outcome = experiment.run(_by_lbfgs(experiment, labels, draws, seed), baselines)
    else:
        outcome = _by_protocol(experiment, protocol, epochs, seed)
    finish("linear-eval", experiment, outcome, fail_under=fail_under, as_json=as_json)


def _by_lbfgs(experiment: Experiment, labels: str | None, draws: int | None, seed: int) -> Evaluate:
    from ..evaluate.few_labels import over_draws, parse_labels
    from ..evaluate.linear import linear

    def evaluate(train: Features, test: Features) -> list[Score]:
        return [linear(train, test, seed=seed)]

    if labels is None:
        return evaluate
    return over_draws(evaluate, parse_labels(labels), experiment.train, seed, draws)


def _by_protocol(
    experiment: Experiment, name: str, epochs: float | None, seed: int
) -> tuple[list[Score], dict[str, Score], list[Features]]:
    import torch

    from ..evaluate.features import with_labels
    from ..evaluate.finetune import Task
    from ..evaluate.protocols import evaluate, find_protocol

    e, protocol = experiment, find_protocol(name, epochs)
    output.note(f"{protocol.name} ({protocol.source}): {protocol.epochs:g} epochs over {len(e.train)} images")
    say = progress()
    task = Task(e.train, e.test, e.encoder.meta["image"], e.device, e.dtype, e.workers)
    score, test = evaluate(e.encoder.backbone, task, protocol, seed, say)
    said = score.protocol
    chosen = f"; of {said['heads']} heads, by {said['held_out']} training images held out" if "held_out" in said else ""
    output.note(f"learning rate {said['lr']:g}, {said['reads']}{chosen}")
    train = with_labels(e.train, torch.empty(0, test.x.shape[1]), torch.empty(0, dtype=torch.int64), [])
    return [score], {}, [train, test]
