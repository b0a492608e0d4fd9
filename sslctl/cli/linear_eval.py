"""``sslctl linear-eval``: how well a linear classifier reads classes off frozen features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .evaluating import finish, open_experiment
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


def linear_eval(
    model: Model,
    data: LabelledData = None,
    val_data: ValData = None,
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

    Logistic regression by L-BFGS on standardised frozen features; its penalty is chosen on a part of the training images,
    never on the test images.

    Examples:

      sslctl linear-eval runs/swav-resnet18-demo-1a2b3c

      sslctl linear-eval last.safetensors --data labelled/ --json

      sslctl linear-eval last.safetensors --data train/ --val-data test/ --fail-under 0.8
    """
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

    def evaluate(train: Features, test: Features) -> list[Score]:
        from ..evaluate.linear import linear

        return [linear(train, test, seed=seed)]

    finish("linear-eval", experiment, experiment.run(evaluate, baselines), fail_under=fail_under, as_json=as_json)
