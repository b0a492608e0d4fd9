"""``sslctl finetune``: train the whole network with labels, from an encoder or from scratch."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ..errors import DataError, SpecError
from ..files import LOCK
from . import output
from .evaluating import Experiment, Labelled, check_draws
from .options import Force, Precision, Targets, takes
from .report import draw
from .scored import WORDS, circumstances, close, provenance, settle, spreads
from .targeted import refuse_classes

if TYPE_CHECKING:
    from ..data import Source
    from ..evaluate.finetune.goals import Goal
    from ..evaluate.finetune.training import Classifier, Recipe
    from ..evaluate.label_subsets import Drawn
    from ..evaluate.score import Score
    from ..evaluate.targets import TargetScore
    from ..spec.schema import Data

    Start = dict[str, bool | int | str | None]  # what a fine-tuning begins with, and which labels it may see


@takes("given", Labelled)
def finetune(
    *,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Begin with random weights of the same architecture.")
    ] = False,
    epochs: Annotated[float, typer.Option(min=0, help="Length of the training.")] = 50,
    batch_size: Annotated[int, typer.Option("--batch-size", min=2, help="Images in a step.")] = 128,
    lr: Annotated[float, typer.Option(min=0, help="Peak learning rate of the head at batch size 256.")] = 1e-3,
    layer_decay: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1,
            help="Factor on the rate of each layer below; by default 0.75, 1 from scratch.",
            show_default=False,
        ),
    ] = None,
    weight_decay: Annotated[float, typer.Option(min=0, help="Of AdamW.")] = 0.05,
    smoothing: Annotated[float, typer.Option(min=0, max=0.99, help="Label smoothing.")] = 0.0,
    mixup: Annotated[float, typer.Option(min=0, help="Alpha of mixup; 0 for none.")] = 0.0,
    cutmix: Annotated[float, typer.Option(min=0, help="Alpha of CutMix; 0 for none.")] = 0.0,
    draws: Annotated[
        int, typer.Option(min=1, max=100, help="Draws of --labels to train with, each anew, and to average.")
    ] = 1,
    targets: Targets = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the result.", show_default=False)] = None,
    force: Force = False,
    precision: Precision = "auto",
    given: Labelled,
) -> None:
    """Train the whole network with labels, and score it.

    The last weights are scored; none are chosen by the test images. Writes result.json, metrics.jsonl and
    model.safetensors, which every other command takes; of several --draws, the curve and the model are the first's.

    Examples:

      sslctl finetune runs/swav-resnet18-demo-1a2b3c --data labelled/ --out runs/tuned

      sslctl finetune runs/swav-resnet18-demo-1a2b3c --data labelled/ --from-scratch --out runs/scratch

      sslctl finetune last.safetensors --data photos/ --targets labels.csv

      sslctl finetune last.safetensors --data labelled/ --labels 0.01 --draws 5

      sslctl finetune last.safetensors --data labelled/ --labels 0.1 --mixup 0.8 --cutmix 1 --smoothing 0.1
    """
    check_draws(draws, given.labels)
    experiment, goal = _by_classes(given, smoothing) if targets is None else _by_table(given, targets, smoothing)

    from ..evaluate.finetune.training import Recipe
    from ..evaluate.label_subsets import Drawn

    decay = layer_decay or (1.0 if from_scratch else 0.75)
    recipe = Recipe(
        epochs, batch_size, lr, decay, weight_decay, smoothing=smoothing, mixup=mixup, cutmix=cutmix, seed=given.seed
    )
    drawn = Drawn.of(experiment.train, experiment.labels, given.seed, draws)
    experiment.train = drawn.parts[0]
    if goal.outputs < (2 if targets is None else 1) or len(experiment.train) < 2:
        raise DataError(f"{experiment.train.name}: fine-tuning needs two classes and two images or more")
    start: Start = {"from_scratch": from_scratch, "labels": given.labels} | ({"draws": draws} if draws > 1 else {})
    folder = _directory(out, force, experiment, recipe, start)
    begin = "random weights" if from_scratch else str(experiment.encoder.path)
    output.note(f"{len(experiment.train)} training and {len(experiment.test)} test images, from {begin}, into {folder}")
    result, score = _run(experiment, drawn, recipe, goal, folder, start, given)
    sizes = f"{result['n_train']} training and {result['n_test']} test images, from {begin}"
    lines = [f"finetune: {score}", *spreads(result["protocol"]), f"  {sizes}", str(folder)]
    close(result, lines, goal.key, given.as_json)


def _by_classes(given: Labelled, smoothing: float) -> tuple[Experiment, Goal]:
    from ..evaluate.finetune.goals import Classes

    experiment = given.experiment()
    return experiment, Classes(len(experiment.train.classes), smoothing)


def _by_table(given: Labelled, path: str, smoothing: float) -> tuple[Experiment, Goal]:
    import torch

    from ..evaluate.finetune.goals import Columns
    from ..evaluate.targets import read_table, split_by

    refuse_classes(given)
    if smoothing:
        raise SpecError("--smoothing is of classes, and --targets has none", "leave it out")
    table = read_table(path)
    experiment = given.unlabelled(split=split_by(table))
    return experiment, Columns.of(table, torch.as_tensor(experiment.train.labels))


def _directory(out: Path | None, force: bool, experiment: Experiment, recipe: Recipe, start: Start) -> Path:
    """Where the result goes; SpecError where one stands there already."""
    if out is None:
        train, encoder = experiment.train, experiment.encoder
        said = repr((recipe, start, train.fingerprint(), encoder.meta.sha256))
        begin = "scratch" if start["from_scratch"] else encoder.spec.method.name
        name = f"finetune-{begin}-{encoder.spec.backbone.arch}-{Path(train.name).stem or 'data'}"
        clean = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
        out = Path("runs") / f"{clean}-{hashlib.sha256(said.encode()).hexdigest()[:6]}"
    if out.exists() and not out.is_dir():
        raise SpecError(f"--out {out} is a file", "give a directory")
    if out.is_dir() and any(path.name != LOCK for path in out.iterdir()) and not force:
        raise SpecError(f"{out} is not empty", "choose another --out, or --force to replace its result")
    return out


def _run(
    experiment: Experiment, drawn: Drawn, recipe: Recipe, goal: Goal, folder: Path, start: Start, given: Labelled
) -> tuple[Data, Score | TargetScore]:
    """Train in the locked ``folder`` on one draw after the other, write the files, and return the result."""
    from ..evaluate.finetune.training import Task, save
    from ..evaluate.finetune.training import finetune as tune
    from ..files import write_atomically
    from ..runs.directory import locked
    from ..runs.meta import DataFacts

    encoder, train = experiment.encoder, experiment.train
    lines: list[Data] = []

    def tell(line: Data) -> None:
        output.note(
            f"epoch {line['epoch']:g} · loss {line['loss']:.4f} · {WORDS.get(goal.key, 'score')} {line[goal.key]:.3f}"
        )

    def record(line: Data) -> None:
        lines.append(line)
        write_atomically(folder / "metrics.jsonl", "".join(json.dumps(one) + "\n" for one in lines).encode())
        tell(line)

    def learn(part: Source, report: Callable[[Data], None]) -> tuple[Classifier, Score | TargetScore]:
        net = _classifier(experiment, recipe, goal, bool(start["from_scratch"]))
        image = encoder.meta.image
        task = Task(part, experiment.test, image, experiment.device, experiment.dtype, experiment.workers)
        return net, tune(net, task, recipe, goal, report)

    with locked(folder):
        net, score = learn(train, record)
        scores = [score, *(learn(part, tell)[1] for part in drawn.parts[1:])]
        if experiment.labels is not None:  # then classes are scored, for others refuse it
            score = drawn.average(cast("list[Score]", scores))
        result = _result(experiment, score, start) | {"run": str(folder)}
        settle(result, result.pop("notes"), goal.key, given.fail_under)
        own = DataFacts(name=train.name, fingerprint=train.fingerprint(), images=len(train))
        meta = encoder.meta.but(step=lines[-1]["step"], data=own, finetuned=result["protocol"])
        save(folder / "model.safetensors", net, meta, train.classes)
        write_atomically(folder / "result.json", (json.dumps(result, allow_nan=False, indent=2) + "\n").encode())
        draw(folder)
    return result, score


def _classifier(experiment: Experiment, recipe: Recipe, goal: Goal, from_scratch: bool) -> Classifier:
    """The network that a training begins with; of the encoder a copy, for training moves it."""
    import torch

    from ..evaluate.baselines import random_backbone
    from ..evaluate.finetune.training import Classifier

    encoder = experiment.encoder
    if from_scratch:
        backbone = random_backbone(encoder.spec.backbone, encoder.meta.image.size, recipe.seed)
    else:
        backbone = copy.deepcopy(encoder.backbone)
    torch.manual_seed(recipe.seed)
    return Classifier(backbone, goal.outputs)


def _result(experiment: Experiment, score: Score | TargetScore, start: Start) -> Data:
    from ..evaluate.caveats import absent_classes, overlap

    result: Data = {"task": "finetune", **score.as_dict()}
    result["protocol"] |= start | circumstances(experiment)
    notes = list(score.notes)
    for findings in (overlap, absent_classes) if experiment.train.classes else (overlap,):
        facts, said = findings(experiment.train, experiment.test)
        result |= facts
        notes += said
    return result | provenance(experiment) | {"notes": notes}
