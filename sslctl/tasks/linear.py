"""Linear evaluation: how well a linear classifier reads classes, or other targets, off frozen features."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Unpack

from ..errors import SpecError
from . import options as opt
from .options import Option

if TYPE_CHECKING:
    from ..data import Source
    from ..evaluate.features.extract import FeatureSet
    from ..evaluate.linear.protocols import Protocol
    from ..evaluate.score import Score
    from .evaluation import Experiment
    from .results import ClassScore, TargetsScore


@opt.task
def linear_eval(
    encoder: opt.Encoder,
    data: opt.LabelledData = None,
    *,
    protocol: Annotated[
        str, Option("lbfgs, or a paper's: dinov2, moco, simclr, dino, swav, simsiam, barlow.")
    ] = "lbfgs",
    epochs: Annotated[float | None, Option("Length of a paper's protocol, if not its own.", min=0.001)] = None,
    targets: opt.Targets = None,
    seeds: Annotated[int, Option("Evaluations to average, from --seed on.", min=1, max=100)] = 1,
    **options: Unpack[opt.EvaluationOptions],
) -> ClassScore | TargetsScore:
    """Score an encoder by a linear classifier: by L-BFGS on frozen features, or by a paper's protocol.

    With ``targets`` the columns of a table are predicted instead of classes. Raises SpecError for options that do not
    go together, DataError for images that cannot be used, CheckpointError for what is not an encoder.
    """
    from ..evaluate.linear.logistic import linear
    from ..evaluate.linear.protocols import find_protocol
    from ..evaluate.linear.targets import linear_targets
    from ..evaluate.repeats import over_seeds
    from .evaluation import class_score, open_experiment, open_table, targets_score, unreadable

    o = opt.with_defaults(opt.EvaluationOptions, options)
    by_paper = protocol != "lbfgs"
    if targets is not None and (by_paper or epochs or seeds > 1):
        raise SpecError("--targets are predicted by L-BFGS or ridge regression, once", "leave out other options")
    if by_paper and o["baselines"]:
        raise SpecError("--baselines goes with --protocol lbfgs", "leave it out, or score random:ARCH by itself")
    if not by_paper and epochs is not None:
        raise SpecError("--epochs: L-BFGS has none", "leave it out, or give a --protocol")
    paper = find_protocol(protocol, epochs) if by_paper else None
    table = None if targets is None else open_table(targets, o)
    experiment = open_experiment(encoder, data, o, table=table)
    if table is not None:
        return targets_score("linear-eval", experiment, linear_targets(*experiment.features(), table, seed=o["seed"]))
    if paper is not None:
        score, test = _by_protocol(experiment, paper, seeds)
        return class_score("linear-eval", experiment, [score], {}, test, skipped=unreadable(test, test))

    def evaluate(train: FeatureSet, test: FeatureSet) -> list[Score]:
        return [over_seeds(lambda seed: linear(train, test, seed=seed), o["seed"], seeds)]

    scores, beside, (train, test) = experiment.score(evaluate)
    return class_score("linear-eval", experiment, scores, beside, test, skipped=unreadable(train, test))


def _by_protocol(e: Experiment, protocol: Protocol, seeds: int) -> tuple[Score, FeatureSet]:
    """Return the score by a paper's ``protocol``, and the features of the test images."""
    from ..evaluate.label_subsets import Drawn
    from ..evaluate.labelled_training import Task
    from ..evaluate.linear.protocols import evaluate
    from ..evaluate.repeats import over_seeds

    seed = e.options["seed"]
    drawn = Drawn.of(e.train, e.labels, seed, e.options["draws"] or 1)
    label = f"{protocol.name} ({protocol.source}): {protocol.epochs:g} epochs over {len(drawn.parts[0])} images"
    e.feedback.note(label)
    tested: list[FeatureSet] = []

    def once(part: Source, seed: int) -> Score:
        task = Task(part, e.test, e.encoder.meta.image, e.machine.device, e.machine.dtype, e.machine.workers)
        score, test = evaluate(e.encoder.backbone, task, protocol, seed, e.feedback.counter(label))
        tested.append(test)
        p = score.protocol
        chosen = f"; of {p['heads']} heads, by {p['held_out']} training images held out" if "held_out" in p else ""
        e.feedback.note(f"learning rate {p['lr']:g}, {p['reads']}{chosen}")
        return score

    return drawn.average([over_seeds(partial(once, part), seed, seeds) for part in drawn.parts]), tested[0]
