"""What the commands that score an encoder share: features of labelled images, baselines, the result and its gate."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import DataError, Exit, SpecError
from . import output
from .opening import open_model

if TYPE_CHECKING:
    from torch import device, dtype, nn

    from ..checkpoint import LoadedEncoder
    from ..data import Source
    from ..evaluate.cache import Cache
    from ..evaluate.features import Features
    from ..evaluate.few_labels import FewLabels
    from ..evaluate.score import Score
    from ..views.evaluation import EvalTransform

    Evaluate = Callable[[Features, Features], list[Score]]

INTERVAL = 10.0  # seconds between lines of progress


@dataclass
class Experiment:
    """An encoder, labelled images to learn from and to test on, and the machine to do it on."""

    encoder: LoadedEncoder
    train: Source
    test: Source
    device: device
    dtype: dtype
    workers: int
    batch_size: int
    seed: int = 0
    cache: Cache | None = None
    labels: FewLabels | None = None
    draws: int | None = None

    def run(self, evaluate: Evaluate, baselines: bool) -> tuple[list[Score], dict[str, Score], list[Features]]:
        """The scores of the encoder, the first score of each baseline, and the encoder's features."""
        from ..evaluate.baselines import PIXELS, Pixels, random_backbone
        from ..evaluate.cache import encoder_identity
        from ..evaluate.few_labels import over_draws
        from ..views.evaluation import EvalTransform

        if self.labels is not None:
            evaluate = over_draws(evaluate, self.labels, self.train, self.seed, self.draws)
        meta, spec = self.encoder.meta, self.encoder.spec.backbone
        own = EvalTransform(meta["image"]["size"], meta["image"]["mean"], meta["image"]["std"])
        built = {"backbone": spec.model_dump(mode="json"), "size": meta["image"]["size"]}
        pair = self._features(self.encoder.backbone, own, spec.arch, encoder_identity(self.encoder))
        scores, beside = evaluate(*pair), {}
        if baselines:
            beside["pixels"] = evaluate(*self._features(Pixels(), PIXELS, "raw pixels", "pixels"))[0]
            fresh = random_backbone(spec, meta["image"]["size"])
            beside["random"] = evaluate(*self._features(fresh, own, "random weights", built))[0]
        return scores, beside, pair

    def _features(self, net: nn.Module, transform: EvalTransform, what: str, identity: Any) -> list[Features]:
        parts = [(self.train, "training"), (self.test, "test")]
        if self.train is self.test:
            return [self._part(net, self.train, transform, f"images, {what}", identity)] * 2
        return [self._part(net, source, transform, f"{part} images, {what}", identity) for source, part in parts]

    def _part(self, net: nn.Module, source: Source, transform: EvalTransform, what: str, identity: Any) -> Features:
        """Features of one set: those of the cache where it has them, which then has them in any case."""
        from ..evaluate.cache import take_features

        taken = take_features(
            self.cache,
            identity,
            net,
            source,
            transform,
            batch_size=self.batch_size,
            workers=self.workers,
            device=self.device,
            dtype=self.dtype,
            starting=lambda: output.note(f"features of {len(source)} {what}"),
            progress=progress(),
        )
        if taken.before:
            output.note(f"features of {len(source)} {what}: taken before (or --no-cache)")
        if taken.unkept:
            output.warn(f"features are not kept: {taken.unkept}")
        return taken.features


def open_experiment(
    model: Path,
    data: str | None,
    val_data: str | None,
    *,
    seed: int,
    download: bool,
    device: str,
    precision: str,
    workers: int | None,
    batch_size: int,
    cache: bool = True,
    labels: str | None = None,
    draws: int | None = None,
    alone: bool = False,
) -> Experiment:
    """The encoder in ``model``, and ``data`` or else the images it was trained on, split as they were then.

    ``labels`` and ``draws`` are the words of ``--labels`` and ``--draws``. ``alone``: one set, not split, both trains
    and tests.
    """
    from .. import distributed
    from ..data import open_one, open_pair
    from ..evaluate.cache import cache_beside
    from ..evaluate.few_labels import parse_labels
    from ..machine import choose_device, choose_dtype, choose_workers
    from ..spec import DataSpec

    few = None if labels is None else parse_labels(labels)
    chosen = choose_device(device)
    distributed.join(chosen)
    encoder = open_model(model)
    drawn = seed
    if data is None and "imported" in encoder.meta:
        raise SpecError(f"{model}: these weights are no run's, so there are no images of their own", "give --data")
    if data is None:
        spec, seed = encoder.spec.data, encoder.spec.run.seed
        spec = spec.model_copy(update={"val": val_data or spec.val, "download": download})
    else:
        spec = DataSpec(path=data, val=val_data, download=download)
    train, test = (open_one(spec),) * 2 if alone else open_pair(spec, seed)
    for source in (train, test):
        for line in source.notes:
            output.note(line)
        if source.labels is None:
            hint = "give labelled images with --data" if data is None else "put images into one folder for each class"
            raise DataError(f"{source.name} has no labels to evaluate with", hint)
    dtype = choose_dtype(precision, chosen)
    kept = cache_beside(encoder.path) if cache and encoder.path.exists() else None
    workers = choose_workers(workers)
    return Experiment(encoder, train, test, chosen, dtype, workers, batch_size, drawn, kept, few, draws)


def finish(
    task: str,
    experiment: Experiment,
    outcome: tuple[list[Score], dict[str, Score], list[Features]],
    *,
    fail_under: float | None,
    as_json: bool,
) -> None:
    """Print the result; exit with code 7 where its top-1, that of the first score, is under ``fail_under``."""
    scores, beside, pair = outcome
    first, encoder = scores[0], experiment.encoder
    notes = list(dict.fromkeys(line for score in scores for line in score.notes))
    skipped = [{"image": name, "reason": reason} for part in pair for name, reason in part.skipped]
    for line in notes:
        output.warn(line)
    if skipped:
        output.warn(f"{len(skipped)} images cannot be read, the first: {skipped[0]['image']}: {skipped[0]['reason']}")
    result: dict[str, Any] = {"task": task, **first.as_dict()}
    result["protocol"] |= {
        "arch": encoder.spec.backbone.arch,
        "size": encoder.meta["image"]["size"],
        "precision": str(experiment.dtype).removeprefix("torch."),
    }
    if len(scores) > 1:
        result["grid"] = [dict(s.protocol) | {"top1": s.top1, "top5": s.top5} for s in scores]
    if beside:
        result["baselines"] = {name: score.as_dict() for name, score in beside.items()}
    sets = zip(("train", "test"), pair, strict=True)
    result |= {
        "data": {key: {"name": part.name, "fingerprint": part.fingerprint} for key, part in sets},
        "checkpoint": {"path": str(encoder.path), "method": encoder.spec.method.name, "step": encoder.meta["step"]},
        "skipped": skipped,
        "notes": notes,
    }
    if fail_under is not None:
        result["gate"] = {"fail_under": fail_under, "passed": first.top1 >= fail_under}
    output.emit(result, as_json, describe(task, scores, beside, pair))
    if fail_under is not None and first.top1 < fail_under:
        output.warn(f"top-1 {first.top1:.4f} is under --fail-under {fail_under:g}")
        raise typer.Exit(int(Exit.GATE))


def describe(task: str, scores: list[Score], beside: dict[str, Score], pair: list[Features]) -> str:
    """The result for people, the first score first."""
    first = scores[0]
    lines = [f"{task}: {first}"]
    shown = ("k", "temperature", "l2", "lr")
    if len(scores) > 1:
        for score in scores:
            words = ", ".join(f"{key} {score.protocol[key]:g}" for key in shown if key in score.protocol)
            lines.append(f"  {words}: {score}")
    else:
        lines.append("  " + ", ".join(f"{key} {first.protocol[key]:g}" for key in shown if key in first.protocol))
    if first.protocol.get("draws", 1) > 1:
        lines.append(
            f"  mean of {first.protocol['draws']} draws of {first.protocol['labels']}; "
            f"they differ by {100 * first.protocol['spread']:.1f} points (one standard deviation)"
        )
    names = {"pixels": "raw pixels", "random": "random weights"}
    lines += [f"  {names[key]}: {score}" for key, score in beside.items()]
    where = pair[0].name if pair[0].name == pair[1].name else f"{pair[0].name} and {pair[1].name}"
    lines.append(f"  {first.n_train} training and {first.n_test} test images of {first.classes} classes, {where}")
    return "\n".join(lines)


def progress() -> Callable[[int, int], None]:
    """Says every ten seconds how far a long pass over images is."""
    last = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= INTERVAL:
            last = time.monotonic()
            output.note(f"  {done} of {total} images")

    return say
