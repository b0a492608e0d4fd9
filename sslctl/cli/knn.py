"""``sslctl knn``: how well neighbours in feature space share a class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ..errors import SpecError
from .evaluating import finish, open_experiment
from .options import (
    BatchSize,
    Device,
    Download,
    Draws,
    FailUnder,
    Json,
    LabelledData,
    Labels,
    Model,
    NoCache,
    Precision,
    Seed,
    ValData,
    Workers,
)

if TYPE_CHECKING:
    from ..evaluate.features import Features
    from ..evaluate.score import Score

N = TypeVar("N", int, float)


def knn(
    model: Model,
    data: LabelledData = None,
    val_data: ValData = None,
    k: Annotated[str, typer.Option(help="Neighbours that vote; several as 10,20: the first is the result.")] = "20",
    temperature: Annotated[str, typer.Option(help="Of the votes' weights; several as 0.07,0.1.")] = "0.07",
    baselines: Annotated[bool, typer.Option("--baselines", help="Score raw pixels and random weights too.")] = False,
    labels: Labels = None,
    draws: Draws = None,
    fail_under: FailUnder = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "fp32",  # a score should not depend on what the CPU can do
    workers: Workers = None,
    batch_size: BatchSize = 256,
    download: Download = False,
    no_cache: NoCache = False,
    as_json: Json = False,
) -> None:
    """Score an encoder by its nearest neighbours.

    The weighted vote of InstDisc and DINO; nothing is trained.

    Examples:

      sslctl knn runs/swav-resnet18-demo-1a2b3c --baselines

      sslctl knn last.safetensors --data labelled/ --k 10,20,100 --json

      sslctl knn last.safetensors --data labelled/ --labels 10-per-class

      sslctl knn last.safetensors --data train/ --val-data test/ --fail-under 0.5
    """
    ks, temperatures = numbers("--k", k, int), numbers("--temperature", temperature, float)
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
        cache=not no_cache,
        labels=labels,
        draws=draws,
    )

    def evaluate(train: Features, test: Features) -> list[Score]:
        from ..evaluate import knn as by_neighbours

        return by_neighbours.knn(train, test, ks, temperatures)

    finish("knn", experiment, experiment.run(evaluate, baselines), fail_under=fail_under, as_json=as_json)


def numbers(option: str, text: str, kind: type[N]) -> list[N]:
    """The positive numbers in ``text``, separated by commas; SpecError where it holds others."""
    try:
        found = [kind(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < number < 1e9 for number in found):
        raise SpecError(f"{option} '{text}': not positive numbers separated by commas", f"for example {option} 10,20")
    return list(dict.fromkeys(found))
