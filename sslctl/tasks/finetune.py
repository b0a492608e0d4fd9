"""Fine-tuning: the whole network trained with labels, from an encoder or from random weights, into a directory."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Unpack, cast

from ..errors import DataError, SpecError
from ..files import LOCK
from . import options as opt
from .options import Option

if TYPE_CHECKING:
    from ..data import Source
    from ..evaluate.finetune.goals import Goal
    from ..evaluate.finetune.training import Classifier, Recipe
    from ..evaluate.label_subsets import Drawn
    from ..evaluate.score import Score
    from ..evaluate.targets import TargetScore
    from .evaluation import Experiment
    from .results import ClassScore, TargetsScore

    Start = dict[str, bool | int | str | None]  # what a fine-tuning starts from, and which labels it may use


@opt.task
def finetune(
    encoder: opt.Encoder,
    data: opt.LabelledData = None,
    *,
    from_scratch: Annotated[bool, Option("Start from random weights of the same architecture.")] = False,
    epochs: Annotated[float, Option("Length of the training.", min=0)] = 50,
    batch_size: Annotated[int, Option("Images in a step.", min=2)] = 128,
    lr: Annotated[float, Option("Peak learning rate of the head at batch size 256.", min=0)] = 1e-3,
    layer_decay: Annotated[
        float | None,
        Option("Factor on the rate of each layer below; by default 0.75, 1 from scratch.", min=0.01, max=1),
    ] = None,
    weight_decay: Annotated[float, Option("Of AdamW.", min=0)] = 0.05,
    smoothing: Annotated[float, Option("Label smoothing.", min=0, max=0.99)] = 0.0,
    mixup: Annotated[float, Option("Alpha of mixup; 0 for none.", min=0)] = 0.0,
    cutmix: Annotated[float, Option("Alpha of CutMix; 0 for none.", min=0)] = 0.0,
    draws: Annotated[int, Option("Random draws of --labels to average, with a training for each.", min=1, max=100)] = 1,
    targets: opt.Targets = None,
    out: Annotated[Path | None, Option("Directory of the result.")] = None,
    force: opt.Force = False,
    precision: opt.Precision = "auto",
    **options: Unpack[opt.TrainingOptions],
) -> ClassScore | TargetsScore:
    """Train the whole network with labels and score its last weights; ``result.run`` is the directory of its files.

    Raises SpecError for options that do not go together and for a directory with content, DataError for images that
    cannot be used, DivergedError where the loss is not finite.
    """
    import torch

    from ..evaluate.finetune.goals import Classes, Columns
    from ..evaluate.finetune.training import Recipe
    from ..evaluate.label_subsets import Drawn
    from .evaluation import open_experiment, open_table

    words = {**options, "precision": precision, "batch_size": batch_size, "draws": draws}
    o = opt.with_defaults(opt.EvaluationOptions, words)
    if targets is not None and smoothing:
        raise SpecError("--smoothing: only for classes, and --targets has none", "leave it out")
    table = None if targets is None else open_table(targets, o)
    experiment = open_experiment(encoder, data, o, table=table)
    seed, labels, feedback = o["seed"], o["labels"], experiment.feedback
    train = experiment.train
    goal: Goal = (
        Classes(len(train.classes), smoothing) if table is None else Columns.of(table, torch.as_tensor(train.labels))
    )
    decay = layer_decay or (1.0 if from_scratch else 0.75)
    recipe = Recipe(
        epochs, batch_size, lr, decay, weight_decay, smoothing=smoothing, mixup=mixup, cutmix=cutmix, seed=seed
    )
    drawn = Drawn.of(train, experiment.labels, seed, draws)
    experiment.train = drawn.parts[0]
    if goal.outputs < (2 if table is None else 1) or len(experiment.train) < 2:
        raise DataError(f"{experiment.train.name}: fine-tuning needs two classes and two images or more")
    start: Start = {"from_scratch": from_scratch, "labels": labels} | ({"draws": draws} if draws > 1 else {})
    folder = _directory(out, force, experiment, recipe, start)
    origin = "random weights" if from_scratch else str(experiment.encoder.path)
    sizes = f"{len(experiment.train)} training and {len(experiment.test)} test images"
    feedback.note(f"{sizes}, from {origin}, into {folder}")
    return _train(experiment, drawn, recipe, goal, folder, start)


def _directory(out: Path | None, force: bool, experiment: Experiment, recipe: Recipe, start: Start) -> Path:
    """Return where the result goes; SpecError where there is one already."""
    if out is None:
        train, encoder = experiment.train, experiment.encoder
        identity = repr((recipe, start, train.fingerprint(), encoder.meta.sha256))
        origin = "scratch" if start["from_scratch"] else encoder.spec.method.name
        name = f"finetune-{origin}-{encoder.arch}-{Path(train.name).stem or 'data'}"
        clean = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
        out = Path("runs") / f"{clean}-{hashlib.sha256(identity.encode()).hexdigest()[:6]}"
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise SpecError(f"--out {out} is a file", "give a directory")
    if out.is_dir() and any(path.name != LOCK for path in out.iterdir()) and not force:
        raise SpecError(f"{out} is not empty", "choose another --out, or --force to replace its result")
    return out


def _train(
    experiment: Experiment,
    drawn: Drawn,
    recipe: Recipe,
    goal: Goal,
    folder: Path,
    start: Start,
) -> ClassScore | TargetsScore:
    """Train in the locked ``folder`` on one draw after the other, write the files, and return the result."""
    from ..evaluate.finetune.training import Task, save
    from ..evaluate.finetune.training import finetune as tune
    from ..files import write_atomically
    from ..runs.directory import locked
    from ..runs.meta import DataFacts
    from ..runs.metrics import Metrics
    from .evaluation import class_score, targets_score
    from .report import draw_report

    encoder, train, machine, feedback = experiment.encoder, experiment.train, experiment.machine, experiment.feedback
    count = feedback.counter("fine-tuning")
    last: dict[str, Any] = {}

    def tell(line: dict[str, Any]) -> None:
        last.update(line)
        word = "top-1" if goal.key == "top1" else "score"
        feedback.note(f"epoch {line['epoch']:g} · loss {line['loss']:.4f} · {word} {line[goal.key]:.3f}")
        count(round(line["epoch"]), round(recipe.epochs))

    def learn(part: Source, metrics: Metrics | None) -> tuple[Classifier, Score | TargetScore]:
        net = _classifier(experiment, recipe, goal, bool(start["from_scratch"]))
        task = Task(part, experiment.test, encoder.meta.image, machine.device, machine.dtype, machine.workers)

        def report(line: dict[str, Any]) -> None:
            if metrics is not None:
                metrics.append(line)
            tell(line)

        return net, tune(net, task, recipe, goal, report)

    with locked(folder):
        with Metrics(folder) as metrics:
            metrics.start()
            net, score = learn(train, metrics)
        steps = last["step"]
        scores = [score, *(learn(part, None)[1] for part in drawn.parts[1:])]
        if experiment.labels is not None:  # then classes are scored: targets take no --labels
            score = drawn.average(cast("list[Score]", scores))
        score = replace(score, protocol=dict(score.protocol) | start)
        result = (
            targets_score("finetune", experiment, cast("TargetScore", score), run=str(folder))
            if goal.key == "value"
            else class_score("finetune", experiment, [cast("Score", score)], {}, None, run=str(folder))
        )
        own = DataFacts(name=train.name, fingerprint=train.fingerprint(), images=len(train))
        protocol = result.protocol.model_dump(mode="json")
        save(
            folder / "model.safetensors", net, encoder.meta.but(step=steps, data=own, finetuned=protocol), train.classes
        )
        text = json.dumps(result.model_dump(mode="json"), allow_nan=False, indent=2)
        write_atomically(folder / "result.json", f"{text}\n".encode())
        draw_report(folder, feedback)
    return result


def _classifier(experiment: Experiment, recipe: Recipe, goal: Goal, from_scratch: bool) -> Classifier:
    """Return the network that a training starts from; of the encoder a copy, since training changes it."""
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
