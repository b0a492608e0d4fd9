"""kNN: how well neighbours in feature space share a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from ..errors import SpecError
from .feedback import Feedback, Notes, Progress
from .options import (
    Baselines,
    BatchSize,
    Confusion,
    Device,
    Download,
    Draws,
    EncoderArgument,
    FailUnder,
    LabelledData,
    Labels,
    NoCache,
    Option,
    PerClass,
    Precision,
    Seed,
    ValData,
    Workers,
    numbers,
)

if TYPE_CHECKING:
    from ..evaluate.features.extract import Features
    from ..evaluate.score import Score
    from .results import ClassScore


def knn(
    encoder: EncoderArgument,
    data: LabelledData = None,
    *,
    val_data: ValData = None,
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
    labels: Labels = None,
    draws: Draws = None,
    baselines: Baselines = False,
    per_class: PerClass = False,
    confusion: Confusion = False,
    fail_under: FailUnder = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "fp32",
    workers: Workers = None,
    batch_size: BatchSize = 256,
    no_cache: NoCache = False,
    download: Download = False,
    progress: Progress | None = None,
    notes: Notes | None = None,
) -> ClassScore:
    """Score an encoder by the weighted vote of its nearest neighbours, as InstDisc and DINO do.

    Without ``data``, on the images that it was trained on. Raises SpecError for options that do not go together,
    DataError for images that cannot be used, CheckpointError for what is not an encoder.
    """
    from ..data.opening import has_own_val
    from ..evaluate.knn import vote
    from .encoders import Machine, load
    from .evaluation import check_draws, class_score, open_experiment, unreadable

    ks, temperatures = numbers("--k", k, int), numbers("--temperature", temperature, float)
    if leave_one_out and (labels or val_data):
        raise SpecError("--leave-one-out takes one set with all its labels", "leave out --val-data and --labels")
    if retrieval and labels:
        raise SpecError("--retrieval searches the whole training set", "leave out --labels")
    check_draws(draws, labels)
    if leave_one_out is None:  # a single set, all of whose labels may be used: nothing need be kept back
        leave_one_out = not (data is None or val_data or labels) and not has_own_val(str(data))
    feedback, machine = Feedback(progress, notes), Machine.choose(device, precision, workers, batch_size)
    experiment = open_experiment(
        load(encoder, notes=notes),
        data,
        val_data,
        machine,
        feedback,
        seed=seed,
        labels=labels,
        download=download,
        alone=leave_one_out,
        store=not no_cache,
    )

    def evaluate(train: Features, test: Features) -> list[Score]:
        return vote.knn(train, test, ks, temperatures, retrieval=retrieval)

    scores, beside, (train, test) = experiment.score(evaluate, baselines, draws)
    return class_score(
        "knn",
        experiment,
        scores,
        beside,
        test,
        skipped=unreadable(train, test),
        with_classes=per_class,
        with_confusion=confusion,
        fail_under=fail_under,
    )
