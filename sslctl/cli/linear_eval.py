"""``sslctl linear-eval``: how well a linear classifier reads classes off frozen features."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SpecError
from . import output
from .evaluating import Experiment, Frozen, progress
from .options import Targets, takes
from .scored import finish
from .targeted import finish_targets, refuse_classes

if TYPE_CHECKING:
    from ..data import Source
    from ..evaluate.features.extract import Features
    from ..evaluate.score import Score
    from .evaluating import Outcome


@takes("given", Frozen)
def linear_eval(
    *,
    protocol: Annotated[
        str, typer.Option(help="lbfgs, or a paper's: dinov2, moco, simclr, dino, swav, simsiam, barlow.")
    ] = "lbfgs",
    epochs: Annotated[
        float | None, typer.Option(min=0.001, help="Length of a paper's protocol, if not its own.", show_default=False)
    ] = None,
    targets: Targets = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Evaluations to average, from --seed on.")] = 1,
    given: Frozen,
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

      sslctl linear-eval last.safetensors --data labelled/ --labels 0.01 --draws 3 --protocol simclr

      sslctl linear-eval last.safetensors --data photos/ --targets labels.csv

      sslctl linear-eval last.safetensors --data train/ --val-data test/ --fail-under 0.8
    """
    if targets is not None:
        if protocol != "lbfgs" or epochs or seeds > 1:
            raise SpecError("--targets are read off by L-BFGS or ridge regression, once", "leave out other options")
        return _on_targets(given, targets)
    named = protocol != "lbfgs"
    if named and given.baselines:
        raise SpecError("--baselines goes with --protocol lbfgs", "leave it out, or score random:ARCH by itself")
    if not named and epochs is not None:
        raise SpecError("--epochs: L-BFGS has none", "leave it out, or give a --protocol")
    if named:
        from ..evaluate.linear.protocols import find_protocol

        find_protocol(protocol)  # a wrong name is answered before any image is looked at
    experiment = given.experiment()
    outcome = _by_protocol(experiment, protocol, epochs, seeds) if named else _by_lbfgs(experiment, given, seeds)
    finish("linear-eval", given, experiment, outcome)


def _on_targets(given: Frozen, path: str) -> None:
    from ..evaluate.linear.targets import linear_targets
    from ..evaluate.targets import read_table, split_by

    refuse_classes(given)
    table = read_table(path)
    experiment = given.unlabelled(split=split_by(table))
    train, test = experiment.features()
    score = linear_targets(train, test, table, seed=given.seed)
    finish_targets("linear-eval", given, experiment, score)


def _by_lbfgs(experiment: Experiment, given: Frozen, seeds: int) -> Outcome:
    from ..evaluate.linear.logistic import linear
    from ..evaluate.repeats import over_seeds

    def evaluate(train: Features, test: Features) -> list[Score]:
        return [over_seeds(lambda seed: linear(train, test, seed=seed), given.seed, seeds)]

    return experiment.run(evaluate, given.baselines)


def _by_protocol(experiment: Experiment, name: str, epochs: float | None, seeds: int) -> Outcome:
    import torch

    from ..evaluate.features.extract import with_labels
    from ..evaluate.finetune.training import Task
    from ..evaluate.label_subsets import Drawn
    from ..evaluate.linear.protocols import evaluate, find_protocol
    from ..evaluate.repeats import over_seeds

    e, protocol = experiment, find_protocol(name, epochs)
    drawn = Drawn.of(e.train, e.labels, e.seed, e.draws or 1)
    trained = len(drawn.parts[0])
    output.note(f"{protocol.name} ({protocol.source}): {protocol.epochs:g} epochs over {trained} images")
    tested: list[Features] = []

    def once(part: Source, seed: int) -> Score:
        task = Task(part, e.test, e.encoder.meta.image, e.device, e.dtype, e.workers)
        score, test = evaluate(e.encoder.backbone, task, protocol, seed, progress())
        tested.append(test)
        said = score.protocol
        chosen = (
            f"; of {said['heads']} heads, by {said['held_out']} training images held out" if "held_out" in said else ""
        )
        output.note(f"learning rate {said['lr']:g}, {said['reads']}{chosen}")
        return score

    score = drawn.average([over_seeds(partial(once, part), e.seed, seeds) for part in drawn.parts])
    train = with_labels(e.train, torch.empty(0, tested[0].x.shape[1]), torch.empty(0, dtype=torch.int64), [])
    return [score], {}, [train, tested[0]]
