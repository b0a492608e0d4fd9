"""``sslctl knn``: how well neighbours in feature space share a class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ..errors import SpecError
from .evaluating import Frozen
from .options import takes
from .scored import finish

if TYPE_CHECKING:
    from ..evaluate.features.extract import Features
    from ..evaluate.score import Score

N = TypeVar("N", int, float)


@takes("given", Frozen)
def knn(
    *,
    k: Annotated[str, typer.Option(help="Neighbours that vote; several as 10,20: the first is the result.")] = "20",
    temperature: Annotated[str, typer.Option(help="Of the votes' weights; several as 0.07,0.1.")] = "0.07",
    retrieval: Annotated[bool, typer.Option("--retrieval", help="mAP and recall@k of looking images up, too.")] = False,
    leave_one_out: Annotated[
        bool | None,
        typer.Option(
            "--leave-one-out/--split",
            help="Test each image on all others, or keep some to test on; by default as --data has one part or two.",
            show_default=False,
        ),
    ] = None,
    given: Frozen,
) -> None:
    """Score an encoder by its nearest neighbours.

    The weighted vote of InstDisc and DINO; nothing is trained. A single labelled set is scored leave-one-out.

    Examples:

      sslctl knn runs/swav-resnet18-demo-1a2b3c --baselines

      sslctl knn last.safetensors --data labelled/ --k 10,20,100 --json

      sslctl knn last.safetensors --data labelled/ --labels 10-per-class

      sslctl knn last.safetensors --data labelled/ --per-class --confusion --retrieval

      sslctl knn last.safetensors --data train/ --val-data test/ --fail-under 0.5
    """
    ks, temperatures = numbers("--k", k, int), numbers("--temperature", temperature, float)
    if leave_one_out and (given.labels or given.val_data):
        raise SpecError("--leave-one-out takes one set with all its labels", "leave out --val-data and --labels")
    if retrieval and given.labels:
        raise SpecError("--retrieval looks images up among all of the training set", "leave out --labels")
    experiment = given.experiment(alone=_single(given) if leave_one_out is None else leave_one_out)

    def evaluate(train: Features, test: Features) -> list[Score]:
        from ..evaluate.knn import vote as by_neighbours

        return by_neighbours.knn(train, test, ks, temperatures, retrieval=retrieval)

    finish("knn", given, experiment, experiment.run(evaluate, given.baselines))


def numbers(option: str, text: str, kind: type[N]) -> list[N]:
    """The positive numbers in ``text``, separated by commas; SpecError where it holds others."""
    try:
        found = [kind(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < number < 1e9 for number in found):
        raise SpecError(f"{option} '{text}': not positive numbers separated by commas", f"for example {option} 10,20")
    return list(dict.fromkeys(found))


def _single(given: Frozen) -> bool:
    """Whether ``--data`` is one set, of which nothing need be kept: all labels may be used."""
    from ..data.opening import has_own_val

    if given.data is None or given.val_data or given.labels:
        return False
    return not has_own_val(given.data)
