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
from ..evaluate.features.extract import FeatureSet
from ..evaluate.label_subsets import FewLabels, over_draws, parse_labels
from ..evaluate.score import Score
from ..evaluate.targets import Table, TargetScore, read_table, split_by
from ..runs.encoder import LoadedEncoder
from . import results
from .encoders import Encoder, Machine, cache_of, data_of, failed_of, features_by, load
from .feedback import Feedback
from .options import EvaluationOptions
from .results import ClassScore, TargetsScore

Evaluate = Callable[[FeatureSet, FeatureSet], list[Score]]


@dataclass
class Experiment:
    """An encoder, images to learn from and to test on, and the machine that does it."""

    encoder: Encoder
    train: Source
    test: Source
    machine: Machine
    feedback: Feedback
    labels: FewLabels | None
    options: EvaluationOptions

    def score(self, evaluate: Evaluate) -> tuple[list[Score], Baselines, Pair]:
        """Return the scores of the encoder, the first score of each baseline, and the encoder's features."""
        if self.labels is not None:
            evaluate = over_draws(evaluate, self.labels, self.train, self.options["seed"], self.options["draws"])
        pair = self.features()
        scores, beside = evaluate(*pair), Baselines()
        if self.options["baselines"]:
            beside["pixels"] = evaluate(*self._by(Pixels(), PIXELS, "pixels", "raw pixels"))[0]
            spec, size = self.encoder.spec.backbone, self.encoder.meta.image.size
            identity = {"backbone": spec.model_dump(mode="json"), "size": size}
            net = random_backbone(spec, size)
            beside["random"] = evaluate(*self._by(net, self.encoder.transform(), identity, "random weights"))[0]
        return scores, beside, pair

    def features(self) -> Pair:
        """Return the encoder's features of the training and of the test images."""
        e = self.encoder
        return self._by(e.backbone, e.transform(), e.identity(), e.arch)

    def _by(self, net: Any, transform: Any, identity: Any, what: str) -> Pair:
        cache = cache_of(self.encoder, not self.options["no_cache"])

        def features(source: Source, part: str) -> FeatureSet:
            text = f"{part}images, {what}"
            return features_by(net, transform, identity, source, self.machine, self.feedback, text, cache)

        if self.train is self.test:
            return (features(self.train, ""),) * 2
        return features(self.train, "training "), features(self.test, "test ")


Pair = tuple[FeatureSet, FeatureSet]
Baselines = dict[str, Score]


def open_experiment(
    encoder: str | Path | LoadedEncoder,
    data: str | Path | None,
    o: EvaluationOptions,
    *,
    alone: bool = False,
    table: Table | None = None,
) -> Experiment:
    """Return the encoder and the images at ``data``, or else those that it was trained on, split as they were then.

    ``alone``: one set, not split, both trains and tests. ``table``: its rows are the labels, instead of classes.
    Raises DataError where there are no labels, SpecError for options that do not go together.
    """
    labels, draws, val = o["labels"], o["draws"], o["val_data"]
    if labels is None and (draws or 1) > 1:
        raise SpecError(f"--draws {draws}: nothing is drawn without --labels", "--labels 0.01, or leave it out")
    few = None if labels is None else parse_labels(labels)
    feedback, machine = Feedback.of(o), Machine.of(o)
    model = load(encoder, notes=feedback.notes)
    spec = data_of(model, data, download=o["download"])
    if data is not None or val is not None:
        spec = spec.model_copy(update={"val": None if val is None else str(val)})
    if alone:
        train = test = open_one(spec)
    else:
        split = open_pair if table is None else split_by(table)
        train, test = split(spec, o["seed"] if data is not None else model.spec.run.seed)
    for line in dict.fromkeys([*train.notes, *test.notes]):
        feedback.note(line)
    for source in (train, test):
        if source.labels is None:
            own = "give labelled images with --data"
            hint = own if data is None else "put images into one folder for each class"
            raise DataError(f"{source.name} has no labels to evaluate with", hint)
    return Experiment(model, train, test, machine, feedback, few, o)


def open_table(path: str, o: EvaluationOptions) -> Table:
    """Return the targets in ``path``. SpecError where options are set that concern classes."""
    chosen = {key: o[key] for key in ("labels", "baselines", "per_class", "confusion")}
    chosen["draws"] = (o["draws"] or 1) > 1
    if wrong := [f"--{name.replace('_', '-')}" for name, value in chosen.items() if value]:
        raise SpecError(f"{' '.join(wrong)}: only for classes, and --targets has none", "leave it out")
    return read_table(path)


def class_score(
    task: str,
    experiment: Experiment,
    scores: list[Score],
    baselines: Baselines,
    test: FeatureSet | None,
    *,
    skipped: list[results.Failed] | None = None,
    **more: Any,
) -> ClassScore:
    """Return the result of the first of ``scores``, with what must be known before it is believed; notes are warned of.

    ``test``: features of the test images, where the score without images that are in both sets is to be given.
    """
    first, train, tested = scores[0], experiment.train, experiment.test
    result: dict[str, Any] = {"task": task, **first.as_dict(), **more}
    if len(scores) > 1:
        best = max(scores, key=lambda s: s.top1)
        result["grid"] = [dict(s.protocol) | {"top1": s.top1, "top5": s.top5, "interval": s.interval} for s in scores]
        facts = {"top1": best.top1, "interval": best.interval, "chosen_on": "test images"}
        result["grid_best"] = dict(best.protocol) | facts
    if baselines:
        result["baselines"] = {name: score.as_dict() for name, score in baselines.items()}
    if experiment.options["per_class"]:
        rows = per_class(first, tested.classes)
        result |= {"per_class": rows, "mean_per_class": mean_per_class(rows)}
    if experiment.options["confusion"]:
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
    return ClassScore(**_complete(result, experiment, notes, first.top1))


def targets_score(task: str, experiment: Experiment, score: TargetScore, **more: Any) -> TargetsScore:
    """Return the result of a score on targets; notes are warned of."""
    facts, sentences = overlap(experiment.train, experiment.test)
    result = {"task": task, **score.as_dict(), **facts, **more}
    return TargetsScore(**_complete(result, experiment, [*score.notes, *sentences], score.value))


def _complete(result: dict[str, Any], experiment: Experiment, notes: list[str], value: float) -> dict[str, Any]:
    """Return ``result`` with the encoder, the images by fingerprint, the notes and the gate."""
    e, machine = experiment.encoder, experiment.machine
    result["protocol"] |= {"arch": e.arch, "size": e.meta.image.size, "precision": machine.precision}
    sets = {"train": experiment.train, "test": experiment.test}
    result["data"] = {part: {"name": s.name, "fingerprint": s.fingerprint()} for part, s in sets.items()}
    result["checkpoint"] = {"path": str(e.path), "method": e.spec.method.name, "step": e.meta.step}
    if e.changed:
        notes = [*notes, f"the weights were changed since they were loaded: this is not the score of {e.path}"]
    result["notes"] = list(dict.fromkeys(notes))
    experiment.feedback.warn_all(notes)
    if (fail_under := experiment.options["fail_under"]) is not None:
        result["gate"] = {"fail_under": fail_under, "passed": value >= fail_under}
    return result


def unreadable(train: FeatureSet, test: FeatureSet) -> list[results.Failed]:
    """Return the images of both sets that cannot be read, each once."""
    return list({one.image: one for one in failed_of(train, test)}.values())
