"""``sslctl finetune``: train the whole network with labels, from an encoder or from scratch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DataError, Exit, SpecError
from . import output
from .evaluating import Experiment, open_experiment
from .options import Device, Download, FailUnder, Force, Json, LabelledData, Model, Precision, Seed, ValData, Workers

if TYPE_CHECKING:
    from ..evaluate.finetune import Recipe
    from ..evaluate.score import Score
    from ..spec import Data

    Start = dict[str, bool | str | None]  # what a fine-tuning begins with, and which labels it may see


def finetune(
    model: Model,
    data: LabelledData = None,
    val_data: ValData = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Part of the labels: 0.01, 10-per-class, or a list of images.", show_default=False),
    ] = None,
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
    out: Annotated[Path | None, typer.Option(help="Directory of the result.", show_default=False)] = None,
    force: Force = False,
    fail_under: FailUnder = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = None,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Train the whole network with labels, and score it.

    The last weights are scored; none are chosen by the test images. Writes result.json, metrics.jsonl and
    model.safetensors, which every other command takes.

    Examples:

      sslctl finetune runs/swav-resnet18-demo-1a2b3c --data labelled/ --out runs/tuned

      sslctl finetune runs/swav-resnet18-demo-1a2b3c --data labelled/ --from-scratch --out runs/scratch

      sslctl finetune last.safetensors --data labelled/ --labels 0.1 --mixup 0.8 --cutmix 1 --smoothing 0.1
    """
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
    )

    from ..evaluate.finetune import Recipe

    decay = layer_decay or (1.0 if from_scratch else 0.75)
    recipe = Recipe(
        epochs, batch_size, lr, decay, weight_decay, smoothing=smoothing, mixup=mixup, cutmix=cutmix, seed=seed
    )
    _few(experiment, labels, seed)
    if len(experiment.train.classes) < 2 or len(experiment.train) < 2:
        raise DataError(f"{experiment.train.name}: fine-tuning needs two classes and two images or more")
    start: Start = {"from_scratch": from_scratch, "labels": labels}
    folder = _directory(out, force, experiment, recipe, start)
    begin = "random weights" if from_scratch else str(experiment.encoder.path)
    output.note(f"{len(experiment.train)} training and {len(experiment.test)} test images, from {begin}, into {folder}")
    result = _run(experiment, recipe, folder, start, fail_under)
    low, high = result["interval"]
    top1 = f"top-1 {100 * result['top1']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
    sizes = f"{result['n_train']} training and {result['n_test']} test images, from {begin}"
    output.emit(result, as_json, f"finetune: {top1}\n  {sizes}\n{folder}")
    if fail_under is not None and not result["gate"]["passed"]:
        output.warn(f"top-1 {result['top1']:.4f} is under --fail-under {fail_under:g}")
        raise typer.Exit(int(Exit.GATE))


def _few(experiment: Experiment, labels: str | None, seed: int) -> None:
    """Leave of the training images those whose labels may be used."""
    if labels is None:
        return
    import torch

    from ..evaluate.few_labels import choose, find_listed, parse_labels

    few, source = parse_labels(labels), experiment.train
    rows, missing = choose(few, torch.as_tensor(source.labels), seed, 0), 0
    if few.names:
        rows, missing = find_listed(few, source, torch.arange(len(source)))
    if missing:
        output.warn(f"{missing} of {len(few.names)} lines of {few.text} are no image of {source.name}")
    experiment.train = source.take(rows.numpy())


def _directory(out: Path | None, force: bool, experiment: Experiment, recipe: Recipe, start: Start) -> Path:
    """Where the result goes; SpecError where one stands there already."""
    if out is None:
        train, encoder = experiment.train, experiment.encoder
        said = repr((recipe, start, train.fingerprint(), encoder.meta["sha256"]))
        begin = "scratch" if start["from_scratch"] else encoder.spec.method.name
        name = f"finetune-{begin}-{encoder.spec.backbone.arch}-{Path(train.name).stem or 'data'}"
        clean = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
        out = Path("runs") / f"{clean}-{hashlib.sha256(said.encode()).hexdigest()[:6]}"
    if out.exists() and not out.is_dir():
        raise SpecError(f"--out {out} is a file", "give a directory")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise SpecError(f"{out} is not empty", "choose another --out, or --force to replace its result")
    return out


def _run(experiment: Experiment, recipe: Recipe, folder: Path, start: Start, fail_under: float | None) -> Data:
    """Train, write the files, and return the result."""
    import torch

    from ..evaluate.baselines import random_backbone
    from ..evaluate.finetune import Classifier, Task, save
    from ..evaluate.finetune import finetune as tune
    from ..files import write_atomically

    encoder, train, test = experiment.encoder, experiment.train, experiment.test
    image, backbone = encoder.meta["image"], encoder.backbone
    if start["from_scratch"]:
        backbone = random_backbone(encoder.spec.backbone, image["size"], recipe.seed)
    torch.manual_seed(recipe.seed)
    net = Classifier(backbone, len(train.classes))
    lines: list[Data] = []

    def report(line: Data) -> None:
        lines.append(line)
        write_atomically(folder / "metrics.jsonl", "".join(json.dumps(one) + "\n" for one in lines).encode())
        output.note(f"epoch {line['epoch']:g} · loss {line['loss']:.4f} · top-1 {100 * line['top1']:.1f} %")

    score = tune(net, Task(train, test, image, experiment.device, experiment.dtype, experiment.workers), recipe, report)
    result = _result(experiment, score, start) | {"run": str(folder)}
    if fail_under is not None:
        result["gate"] = {"fail_under": fail_under, "passed": score.top1 >= fail_under}
    own = {"name": train.name, "fingerprint": train.fingerprint(), "images": len(train)}
    meta = encoder.meta | {"step": lines[-1]["step"], "data": own, "finetuned": result["protocol"]}
    save(folder / "model.safetensors", net, meta, train.classes)
    write_atomically(folder / "result.json", (json.dumps(result, allow_nan=False, indent=2) + "\n").encode())
    return result


def _result(experiment: Experiment, score: Score, start: Start) -> Data:
    encoder = experiment.encoder
    result: Data = {"task": "finetune", **score.as_dict()}
    result["protocol"] |= start | {
        "arch": encoder.spec.backbone.arch,
        "size": encoder.meta["image"]["size"],
        "precision": str(experiment.dtype).removeprefix("torch."),
    }
    sets = {"train": experiment.train, "test": experiment.test}
    return result | {
        "data": {key: {"name": part.name, "fingerprint": part.fingerprint()} for key, part in sets.items()},
        "checkpoint": {"path": str(encoder.path), "method": encoder.spec.method.name, "step": encoder.meta["step"]},
    }
