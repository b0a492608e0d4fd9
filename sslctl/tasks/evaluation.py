"""What scoring an encoder on labelled images takes: the images, features, baselines, the result with its caveats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data import Source, open_one, open_pair
from ..errors import DataError, SpecError
from ..evaluate.baselines import PIXELS, Pixels, random_backbone
from ..evaluate.caveats import absent_classes, overlap
from ..evaluate.detail import confusion, mean_per_class, per_class
from ..evaluate.features.cache import cache_beside
from ..evaluate.features.extract import Features
from ..evaluate.label_subsets import FewLabels, over_draws, parse_labels
from ..evaluate.score import Score
from ..evaluate.targets import Table, TargetScore, read_table, split_by
from ..spec.schema import DataSpec
from . import results
from .encoders import Encoder, Machine, data_of, failed_of, features_by
from .feedback import Feedback
from .results import ClassScore, TargetsScore

Evaluate = Callable[[Features, Features], list[Score]]
Split = Callable[[DataSpec, int], tuple[Source, Source]]


@dataclass
class Experiment:
    """An encoder, images to learn from and to test on, and the machine that does it."""

    encoder: Encoder
    train: Source
    test: Source
    machine: Machine
    feedback: Feedback
    seed: int
    labels: FewLabels | None
    store: bool = True

    def score(self, evaluate: Evaluate, baselines: bool, draws: int | None) -> tuple[list[Score], Baselines, Pair]:
        """The scores of the encoder, the first score of each baseline, and the encoder's features."""
        if self.labels is not None:
            evaluate = over_draws(evaluate, self.labels, self.train, self.seed, draws)
        pair = self.features()
        scores, beside = evaluate(*pair), Baselines()
        if baselines:
            beside["pixels"] = evaluate(*self._by(Pixels(), PIXELS, "pixels", "raw pixels"))[0]
            spec, size = self.encoder.spec.backbone, self.encoder.meta.image.size
            identity = {"backbone": spec.model_dump(mode="json"), "size": size}
            net = random_backbone(spec, size)
            beside["random"] = evaluate(*self._by(net, self.encoder.transform(), identity, "random weights"))[0]
        return scores, beside, pair

    def features(self) -> Pair:
        """The encoder's features of the training and of the test images."""
        e = self.encoder
        return self._by(e.backbone, e.transform(), e.identity(), e.arch)

    def _by(self, net: Any, transform: Any, identity: Any, what: str) -> Pair:
        cache = cache_beside(self.encoder.path) if self.store and self.encoder.path.exists() else None

        def features(source: Source, part: str) -> Features:
            text = f"{part}images, {what}"
            return features_by(net, transform, identity, source, self.machine, self.feedback, text, cache)

        if self.train is self.test:
            return (features(self.train, ""),) * 2
        return features(self.train, "training "), features(self.test, "test ")


Pair = tuple[Features, Features]
Baselines = dict[str, Score]


def open_experiment(
    encoder: Encoder,
    data: str | Path | None,
    val_data: str | Path | None,
    machine: Machine,
    feedback: Feedback,
    *,
    seed: int,
    labels: str | None,
    download: bool,
    alone: bool = False,
    table: Table | None = None,
    store: bool = True,
) -> Experiment:
    """The images at ``data``, or else those that the encoder was trained on, split as they were then.

    ``alone``: one set, not split, both trains and tests. ``table``: its rows are the labels, instead of classes.
    Raises DataError where there are no labels, SpecError where it is not known which images are meant.
    """
    few = None if labels is None else parse_labels(labels)
    spec = data_of(encoder, data, download=download)
    spec = spec.model_copy(update={"val": None if val_data is None else str(val_data)} if val_data or data else {})
    split = open_pair if table is None else split_by(table)
    train, test = (open_one(spec),) * 2 if alone else split(spec, seed if data is not None else encoder.spec.run.seed)
    for line in dict.fromkeys([*train.notes, *test.notes]):
        feedback.note(line)
    for source in (train, test):
        if source.labels is None:
            own = "give labelled images with --data"
            hint = own if data is None else "put images into one folder for each class"
            raise DataError(f"{source.name} has no labels to evaluate with", hint)
    return Experiment(encoder, train, test, machine, feedback, seed, few, store)


def open_table(path: str, **class_options: object) -> Table:
    """The targets in ``path``. SpecError where one of ``class_options``, which concern classes, is set."""
    if wrong := [f"--{name.replace('_', '-')}" for name, value in class_options.items() if value]:
        raise SpecError(f"{' '.join(wrong)}: only for classes, and --targets has none", "leave it out")
    return read_table(path)


def check_draws(draws: int | None, labels: str | None) -> None:
    """SpecError where several draws are asked for without anything to draw from."""
    if labels is None and (draws or 1) > 1:
        raise SpecError(f"--draws {draws}: nothing is drawn without --labels", "--labels 0.01, or leave it out")


def accuracy(score: Score) -> dict[str, Any]:
    """The fields of ``results.Accuracy``."""
    return score.as_dict()


def class_score(
    task: str,
    experiment: Experiment,
    scores: list[Score],
    baselines: Baselines,
    test: Features | None,
    *,
    skipped: list[results.Failed] | None = None,
    with_classes: bool = False,
    with_confusion: bool = False,
    fail_under: float | None = None,
    **more: Any,
) -> ClassScore:
    """The result of the first of ``scores``, with what must be known before it is believed; notes are warned of.

    ``test``: features of the test images, where the score without images that are in both sets is to be given.
    """
    first, train, tested = scores[0], experiment.train, experiment.test
    result: dict[str, Any] = {"task": task, **accuracy(first), **more}
    if len(scores) > 1:
        best = max(scores, key=lambda s: s.top1)
        result["grid"] = [dict(s.protocol) | {"top1": s.top1, "top5": s.top5, "interval": s.interval} for s in scores]
        facts = {"top1": best.top1, "interval": best.interval, "chosen_on": "test images"}
        result["grid_best"] = dict(best.protocol) | facts
    if baselines:
        result["baselines"] = {name: accuracy(score) for name, score in baselines.items()}
    if with_classes:
        rows = per_class(first, tested.classes)
        result |= {"per_class": rows, "mean_per_class": mean_per_class(rows)}
    if with_confusion:
        result["confusion"] = {"classes": tested.classes, "counts": confusion(first).tolist()}
    notes = [line for score in scores for line in score.notes]
    for facts, sentences in (
        overlap(train, tested, first, test.index) if test is not None else overlap(train, tested),
        absent_classes(train, tested),
    ):
        result |= facts
        notes += sentences
    if skipped is not None:
        result["skipped"] = skipped
        if skipped:
            one = skipped[0]
            experiment.feedback.warn(f"{len(skipped)} images cannot be read, the first: {one.image}: {one.reason}")
    return ClassScore(**_complete(result, experiment, notes, first.top1, fail_under))


def targets_score(
    task: str, experiment: Experiment, score: TargetScore, fail_under: float | None, **more: Any
) -> TargetsScore:
    """The result of a score on targets; notes are warned of."""
    facts, sentences = overlap(experiment.train, experiment.test)
    result = {"task": task, **score.as_dict(), **facts, **more}
    return TargetsScore(**_complete(result, experiment, [*score.notes, *sentences], score.value, fail_under))


def _complete(
    result: dict[str, Any], experiment: Experiment, notes: list[str], value: float, fail_under: float | None
) -> dict[str, Any]:
    """``result`` with the encoder, the images by fingerprint, the notes and the gate."""
    e, machine = experiment.encoder, experiment.machine
    result["protocol"] |= {"arch": e.arch, "size": e.meta.image.size, "precision": machine.precision}
    sets = {"train": experiment.train, "test": experiment.test}
    result["data"] = {part: {"name": s.name, "fingerprint": s.fingerprint()} for part, s in sets.items()}
    result["checkpoint"] = {"path": str(e.path), "method": e.spec.method.name, "step": e.meta.step}
    result["notes"] = list(dict.fromkeys(notes))
    experiment.feedback.warn_all(notes)
    if fail_under is not None:
        result["gate"] = {"fail_under": fail_under, "passed": value >= fail_under}
    return result


def unreadable(train: Features, test: Features) -> list[results.Failed]:
    """The images of both sets that cannot be read, each once."""
    return list({one.image: one for one in failed_of(train, test)}.values())
