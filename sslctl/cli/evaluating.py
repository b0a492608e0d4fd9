"""What the commands that score an encoder share: their options, the images, features, baselines."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import DataError, SpecError
from . import output
from .opening import open_model
from .options import (
    Baselines,
    BatchSize,
    Confusion,
    Device,
    Download,
    Draws,
    FailUnder,
    Json,
    LabelledData,
    Labels,
    Model,
    NoCache,
    PerClass,
    Precision,
    Seed,
    ValData,
    Workers,
)

if TYPE_CHECKING:
    from torch import device, dtype, nn

    from ..data import Source
    from ..evaluate.features.cache import Cache
    from ..evaluate.features.extract import Features
    from ..evaluate.label_subsets import FewLabels
    from ..evaluate.score import Score
    from ..runs.encoder import LoadedEncoder
    from ..spec.schema import DataSpec
    from ..views.evaluation import EvalTransform

    Evaluate = Callable[[Features, Features], list[Score]]
    Outcome = tuple[list[Score], dict[str, Score], list[Features]]
    Split = Callable[[DataSpec, int], tuple[Source, Source]]

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

    def run(self, evaluate: Evaluate, baselines: bool) -> Outcome:
        """The scores of the encoder, the first score of each baseline, and the encoder's features."""
        from ..evaluate.baselines import PIXELS, Pixels, random_backbone
        from ..evaluate.label_subsets import over_draws

        if self.labels is not None:
            evaluate = over_draws(evaluate, self.labels, self.train, self.seed, self.draws)
        pair = self.features()
        scores, beside = evaluate(*pair), {}
        if baselines:
            beside["pixels"] = evaluate(*self._features(Pixels(), PIXELS, "raw pixels", "pixels"))[0]
            spec, size = self.encoder.spec.backbone, self.encoder.meta.image.size
            built = {"backbone": spec.model_dump(mode="json"), "size": size}
            fresh = random_backbone(spec, size)
            beside["random"] = evaluate(*self._features(fresh, self._transform(), "random weights", built))[0]
        return scores, beside, pair

    def features(self) -> list[Features]:
        """The encoder's features of the training and of the test images."""
        arch = self.encoder.spec.backbone.arch
        return self._features(self.encoder.backbone, self._transform(), arch, self.encoder.identity())

    def _transform(self) -> EvalTransform:

        image = self.encoder.meta.image
        return image.transform()

    def _features(self, net: nn.Module, transform: EvalTransform, what: str, identity: Any) -> list[Features]:
        parts = [(self.train, "training"), (self.test, "test")]
        if self.train is self.test:
            return [self._part(net, self.train, transform, f"images, {what}", identity)] * 2
        return [self._part(net, source, transform, f"{part} images, {what}", identity) for source, part in parts]

    def _part(self, net: nn.Module, source: Source, transform: EvalTransform, what: str, identity: Any) -> Features:
        """Features of one set: those of the cache where it has them, which then has them in any case."""
        from ..evaluate.features.cache import take_features

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


@dataclass(frozen=True)
class Labelled:
    """The options of every command that scores an encoder on labelled images."""

    model: Model
    data: LabelledData = None
    val_data: ValData = None
    labels: Labels = None
    fail_under: FailUnder = None
    seed: Seed = 0
    device: Device = "auto"
    precision: Precision = "fp32"  # a score should not depend on what the CPU can do
    workers: Workers = None
    batch_size: BatchSize = 256
    download: Download = False
    as_json: Json = False

    def experiment(self, *, alone: bool = False) -> Experiment:
        """The encoder, and ``--data`` or else the images that it was trained on, split as they were then.

        ``alone``: one set, not split, both trains and tests. Raises DataError where there are no labels.
        """
        experiment = self.unlabelled(alone=alone)
        for source in (experiment.train, experiment.test):
            if source.labels is None:
                own = "give labelled images with --data"
                hint = own if self.data is None else "put images into one folder for each class"
                raise DataError(f"{source.name} has no labels to evaluate with", hint)
        return experiment

    def unlabelled(self, *, alone: bool = False, split: Split | None = None) -> Experiment:
        """The same of images whose labels do not matter; ``split`` brings them in two parts."""
        from ..data import open_one, open_pair
        from ..evaluate.label_subsets import parse_labels
        from ..runtime import distributed
        from ..runtime.device import choose_device, choose_dtype, choose_workers
        from ..spec.schema import DataSpec

        few = None if self.labels is None else parse_labels(self.labels)
        chosen = choose_device(self.device)
        distributed.join(chosen)
        encoder = open_model(self.model)
        seed = self.seed
        if self.data is not None:
            spec = DataSpec(path=self.data, val=self.val_data, download=self.download)
        elif encoder.meta.imported is not None:
            reason = "these weights are no run's, so there are no images of their own"
            raise SpecError(f"{self.model}: {reason}", "give --data")
        else:
            spec, seed = encoder.spec.data, encoder.spec.run.seed
            spec = spec.model_copy(update={"val": self.val_data or spec.val, "download": self.download})
        train, test = (open_one(spec),) * 2 if alone else (split or open_pair)(spec, seed)
        for line in dict.fromkeys([*train.notes, *test.notes]):
            output.note(line)
        dtype, workers = choose_dtype(self.precision, chosen), choose_workers(self.workers)
        return Experiment(encoder, train, test, chosen, dtype, workers, self.batch_size, self.seed, labels=few)


@dataclass(frozen=True)
class Frozen(Labelled):
    """The options of the commands that score frozen features."""

    draws: Draws = None
    no_cache: NoCache = False
    baselines: Baselines = False
    per_class: PerClass = False
    confusion: Confusion = False

    def unlabelled(self, *, alone: bool = False, split: Split | None = None) -> Experiment:
        from ..evaluate.features.cache import cache_beside

        check_draws(self.draws, self.labels)
        experiment = super().unlabelled(alone=alone, split=split)
        path = experiment.encoder.path
        kept = None if self.no_cache or not path.exists() else cache_beside(path)
        return replace(experiment, cache=kept, draws=self.draws)


def check_draws(draws: int | None, labels: str | None) -> None:
    """SpecError where several draws are asked for of nothing that is drawn."""
    if labels is None and (draws or 1) > 1:
        raise SpecError(f"--draws {draws}: there are none without --labels", "--labels 0.01, or leave it out")


def progress() -> Callable[[int, int], None]:
    """Says every ten seconds how far a long pass over images is."""
    last = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= INTERVAL:
            last = time.monotonic()
            output.note(f"  {done} of {total} images")

    return say
