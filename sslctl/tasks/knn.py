"""kNN: how well neighbours in feature space share a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Unpack

from ..errors import SpecError
from . import options as opt
from .options import Option, numbers

if TYPE_CHECKING:
    from ..evaluate.features.extract import FeatureSet
    from ..evaluate.score import Score
    from .results import ClassScore


@opt.task
def knn(
    encoder: opt.Encoder,
    data: opt.LabelledData = None,
    *,
    k: Annotated[
        str | int | Sequence[int], Option("Neighbours that vote; several as 10,20: the first is the result.", type=str)
    ] = "20",
    temperature: Annotated[
        str | float | Sequence[float], Option("Of the votes' weights; several as 0.07,0.1.", type=str)
    ] = "0.07",
    retrieval: Annotated[bool, Option("Report mAP and recall@k of image retrieval too.")] = False,
    leave_one_out: Annotated[
        bool | None,
        Option(
            "Test each image on all others, or keep some to test on; by default as --data has one part or two.",
            names="--leave-one-out/--split",
        ),
    ] = None,
    **options: Unpack[opt.EvaluationOptions],
) -> ClassScore:
    """Score an encoder by the weighted vote of its nearest neighbours, as InstDisc and DINO do.

    Without ``data``, on the images that it was trained on. Raises SpecError for options that do not go together,
    DataError for images that cannot be used, CheckpointError for what is not an encoder.
    """
    from ..data.opening import has_own_val
    from ..evaluate.knn import vote
    from .evaluation import class_score, open_experiment, unreadable

    o = opt.with_defaults(opt.EvaluationOptions, options)
    ks, temperatures = numbers("--k", k, int), numbers("--temperature", temperature, float)
    if leave_one_out and (o["labels"] or o["val_data"]):
        raise SpecError("--leave-one-out takes one set with all its labels", "leave out --val-data and --labels")
    if retrieval and o["labels"]:
        raise SpecError("--retrieval searches the whole training set", "leave out --labels")
    if leave_one_out is None:  # a single set, all of whose labels may be used: nothing need be kept back
        leave_one_out = not (data is None or o["val_data"] or o["labels"]) and not has_own_val(str(data))
    experiment = open_experiment(encoder, data, o, alone=leave_one_out)

    def evaluate(train: FeatureSet, test: FeatureSet) -> list[Score]:
        return vote.knn(train, test, ks, temperatures, retrieval=retrieval)

    scores, beside, (train, test) = experiment.score(evaluate)
    return class_score("knn", experiment, scores, beside, test, skipped=unreadable(train, test))
