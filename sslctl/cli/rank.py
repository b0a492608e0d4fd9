"""``sslctl rank``: runs in the order of measures that need no labels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SpecError, closest
from . import output
from .evaluating import progress
from .opening import open_model
from .options import BatchSize, Device, Download, Json, NoCache, Precision, Seed, Workers

if TYPE_CHECKING:
    from torch import Tensor

    from ..data import Source
    from ..evaluate.label_free.ranking import Agreement, Ranked
    from ..runs.encoder import LoadedEncoder

AUTHORS_VIEWS = 50  # of each image, for LiDAR
BY = ("rankme", "lidar", "alpha", "nesum", "alignment", "uniformity")


def rank(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Runs, checkpoints, or folders of checkpoints.", show_default=False),
    ],
    data: Annotated[
        str | None,
        typer.Option(help="Images, without labels; by default those of each run.", show_default=False),
    ] = None,
    labelled: Annotated[
        str | None, typer.Option(help="Labelled images: how far does kNN on them agree?", show_default=False)
    ] = None,
    by: Annotated[str, typer.Option(help=f"What decides the order: {', '.join(BY)}.")] = "rankme",
    images: Annotated[int, typer.Option(min=8, help="Images to measure on, drawn with --seed.")] = 2048,
    views: Annotated[int, typer.Option(min=0, help="Views of each image for LiDAR and alignment; 0: none.")] = 10,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "fp32",
    workers: Workers = None,
    batch_size: BatchSize = 256,
    download: Download = False,
    no_cache: NoCache = False,
    as_json: Json = False,
) -> None:
    """Order encoders without labels.

    RankMe, LiDAR, alpha-ReQ, NESum, alignment and uniformity of their features; and, where the online probe or
    --labelled has scores, how far each measure agrees with them.

    Examples:

      sslctl rank runs/*

      sslctl rank runs/byol-resnet18-photos-1a2b3c/checkpoints --data photos/ --by lidar

      sslctl rank runs/* --data photos/ --labelled labelled/ --json
    """
    if by not in BY:
        raise SpecError(f"--by '{by}': no such measure{closest(by, list(BY))}", f"one of {', '.join(BY)}")
    if views == 1 or (views == 0 and by in ("lidar", "alignment")):
        raise SpecError(f"--views {views}: {by if views == 0 else 'LiDAR'} compares views of an image", "--views 10")

    from ..evaluate.label_free.ranking import agreement, find_checkpoints
    from ..runtime import distributed
    from ..runtime.device import choose_device, choose_dtype, choose_workers

    chosen = choose_device(device)
    distributed.join(chosen)
    how = {"batch_size": batch_size, "workers": choose_workers(workers), "device": chosen}
    how["dtype"] = choose_dtype(precision, chosen)
    judge = Judge(data, labelled, images, views, seed, download, not no_cache, how)
    paths, skipped = find_checkpoints(models)
    for line in skipped:
        output.warn(f"left out: {line}")
    ranked = sorted((judge.judge(open_model(path)) for path in paths), key=lambda r: -r.goodness(by))
    agreed, notes = agreement(ranked), judge.notes(ranked, by)
    for line in notes:
        output.warn(line)
    result = {
        "by": by,
        "encoders": [_plain(r) for r in ranked],
        "agreement": {s: {m: _finite(a._asdict()) for m, a in of.items()} for s, of in agreed.items()},
        "data": judge.data_used,
        "views": views,
        "left_out": skipped,
        "notes": notes,
    }
    output.emit(result, as_json, _table(ranked, agreed, by))


@dataclass
class Judge:
    """Measures one encoder after the other on the same images, each set opened once."""

    data: str | None
    labelled: str | None
    images: int
    views: int
    seed: int
    download: bool
    keep: bool  # features beside the run
    how: Any  # a pass is made, as evaluate.stream.How
    data_used: dict[str, str] = field(default_factory=dict)  # name → fingerprint
    _sets: dict[str, Source] = field(default_factory=dict)
    _pairs: list[tuple[Source, Source]] = field(default_factory=list)

    def judge(self, encoder: LoadedEncoder) -> Ranked:
        from ..evaluate.knn.vote import knn
        from ..evaluate.label_free.ranking import Ranked, measure, name_of, probe_scores
        from ..evaluate.online_probe import NEIGHBOURS, TEMPERATURE

        source = self._source(encoder)
        name = name_of(encoder.path)
        output.note(f"{name}: {encoder.spec.backbone.arch} on {len(source)} images of {source.name}")
        taken = self._features(encoder, source)
        found = measure(taken.x, self._views(encoder, source))
        scores = probe_scores(encoder.path, encoder.meta)
        if self.labelled is not None:
            train, test = (self._features(encoder, part) for part in self._labelled(self.labelled))
            scores["knn"] = knn(train, test, [NEIGHBOURS], [TEMPERATURE])[0].top1
        self.data_used[source.name] = taken.fingerprint
        n, width = taken.x.shape
        return Ranked(name, encoder.path, encoder.spec.method.name, encoder.meta.step, n, width, found, scores)

    def notes(self, ranked: list[Ranked], by: str) -> list[str]:
        """What must be known before the numbers are believed."""
        told = []
        if len(self.data_used) > 1:
            told.append("the encoders were measured on different images: give --data to compare them")
        if few := [r for r in ranked if r.images <= r.width]:
            told.append(f"{few[0].images} images for {few[0].width} numbers each bound the ranks: give more --images")
        if self.views and len({r.method for r in ranked}) > 1:
            told.append("LiDAR and alignment are of each run's own views, which differ between methods")
        if by == "lidar" and self.views < AUTHORS_VIEWS:
            told.append(
                f"LiDAR takes a {self.views}th of the views' noise for signal: its authors take --views {AUTHORS_VIEWS}"
            )
        return told

    def _source(self, encoder: LoadedEncoder) -> Source:
        from ..data import open_one
        from ..evaluate.online_probe import some
        from ..spec.schema import DataSpec

        if self.data is None and encoder.meta.imported is not None:
            raise SpecError(
                f"{encoder.path}: these weights are no run's, so it has no images of its own", "give --data"
            )
        spec = encoder.spec.data if self.data is None else DataSpec(path=self.data)
        if spec.path not in self._sets:
            whole = open_one(spec.model_copy(update={"download": self.download}))
            self._sets[spec.path] = some(whole, self.images, self.seed)
        return self._sets[spec.path]

    def _labelled(self, path: str) -> tuple[Source, Source]:
        from ..evaluate.online_probe import open_probe

        if not self._pairs:
            self._pairs.append(open_probe(path, self.images, self.seed, "--labelled"))
        return self._pairs[0]

    def _features(self, encoder: LoadedEncoder, source: Source) -> Any:
        from ..evaluate.features.cache import cache_beside, take_features

        image = encoder.meta.image
        cache = cache_beside(encoder.path) if self.keep and encoder.path.exists() else None
        transform = image.transform()
        identity = encoder.identity()
        return take_features(
            cache, identity, encoder.backbone, source, transform, progress=progress(), **self.how
        ).features

    def _views(self, encoder: LoadedEncoder, source: Source) -> Tensor | None:
        from ..evaluate.label_free.view_features import extract_views, view_plan

        if not self.views:
            return None
        how = {key: value for key, value in self.how.items() if key != "workers"}
        plan = view_plan(encoder)
        return extract_views(encoder.backbone, source, plan, self.views, seed=self.seed, progress=progress(), **how)


def _plain(r: Ranked) -> dict[str, Any]:
    about = {"name": r.name, "checkpoint": str(r.checkpoint), "method": r.method, "step": r.step}
    return about | {"images": r.images, "width": r.width, "measures": _finite(r.measures), "scores": r.scores}


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in values.items()}


def _table(ranked: list[Ranked], agreed: dict[str, dict[str, Agreement]], by: str) -> str:
    from ..evaluate.label_free.ranking import FEWEST, MEASURES

    measures, scores = list(ranked[0].measures), list(dict.fromkeys(key for r in ranked for key in r.scores))
    rows = [["", *(MEASURES[m].title for m in measures), *scores]]
    for r in ranked:
        numbers = [f"{r.measures[m]:.4g}" for m in measures]
        rows.append([r.name, *numbers, *(f"{r.scores[s]:.4f}" if s in r.scores else "-" for s in scores)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(f"{cell:>{w}}" if i else f"{cell:<{w}}" for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    lines.append(f"in the order of {MEASURES[by].title} ({MEASURES[by].source})")
    for score, of in agreed.items():
        n = max(a.n for a in of.values())
        told = ", ".join(f"{MEASURES[m].title} {a.spearman:+.2f}/{a.kendall:+.2f}" for m, a in of.items())
        lines.append(f"agreement with {score} over {n} encoders (Spearman/Kendall): {told}")
    if not agreed:
        lines.append(f"no agreement is told: fewer than {FEWEST} encoders have a score (--labelled computes one)")
    return "\n".join(lines)
