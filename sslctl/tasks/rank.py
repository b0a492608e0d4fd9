"""Encoders in the order of measures that need no labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from ..errors import SpecError
from . import options as opt
from .feedback import Feedback
from .options import Option, one_of

if TYPE_CHECKING:
    from ..data import Source
    from ..evaluate.label_free.ranking import Ranked
    from ..runs.encoder import LoadedEncoder
    from .encoders import Machine
    from .results import Ranking

AUTHORS_VIEWS = 50  # of each image, for LiDAR
MEASURES = ("rankme", "lidar", "alpha", "nesum", "alignment", "uniformity")


@opt.task
def rank(
    encoders: Annotated[
        Sequence[str | Path] | str | Path,
        Option("Runs, checkpoints, or folders of checkpoints.", metavar="RUN...", type=list[Path]),
    ],
    data: opt.Data = None,
    *,
    labelled: Annotated[str | None, Option("Labelled images: how far does kNN on them agree?")] = None,
    by: Annotated[str, Option(f"What decides the order: {', '.join(MEASURES)}.")] = "rankme",
    images: Annotated[int, Option("Images to measure on, drawn with --seed.", min=8)] = 2048,
    views: Annotated[int, Option("Views of each image for LiDAR and alignment; 0: none.", min=0)] = 10,
    seed: opt.Seed = 0,
    download: opt.Download = False,
    **options: Unpack[opt.FeatureOptions],
) -> Ranking:
    """Order encoders without labels, by RankMe, LiDAR, alpha-ReQ, NESum, alignment or uniformity of their features.

    Where the online probe or ``labelled`` has scores, with the agreement of each measure with them. Raises SpecError
    for an unknown measure, CheckpointError where there is no checkpoint, DataError for images that cannot be used.
    """
    one_of("--by", by, MEASURES, "measure")
    if views == 1 or (views == 0 and by in ("lidar", "alignment")):
        raise SpecError(f"--views {views}: {by if views == 0 else 'LiDAR'} compares views of an image", "--views 10")

    from ..evaluate.label_free.ranking import agreement, find_checkpoints
    from .encoders import Machine
    from .results import RankAgreement, RankedEncoder, Ranking

    o = opt.with_defaults(opt.FeatureOptions, options)
    feedback, machine = Feedback.of(o), Machine.of(o)
    given = [encoders] if isinstance(encoders, str | Path) else encoders
    paths, left_out = find_checkpoints([Path(path) for path in given])
    for line in left_out:
        feedback.warn(f"left out: {line}")
    measuring = _Measuring(data, labelled, images, views, seed, download, not o["no_cache"], machine, feedback)
    ranked = sorted((measuring.measure(path) for path in paths), key=lambda r: -r.goodness(by))
    caveats = _caveats(ranked, by, views, measuring.fingerprints)
    feedback.warn_all(caveats)
    return Ranking(
        by=by,
        encoders=[
            RankedEncoder(
                name=r.name,
                checkpoint=str(r.checkpoint),
                method=r.method,
                step=r.step,
                images=r.images,
                width=r.width,
                measures=_finite(r.measures),
                scores=r.scores,
            )
            for r in ranked
        ],
        agreement={
            score: {measure: RankAgreement(**_finite(a._asdict())) for measure, a in of.items()}
            for score, of in agreement(ranked).items()
        },
        data=measuring.fingerprints,
        views=views,
        left_out=left_out,
        notes=caveats,
    )


class _Measuring:
    """Measures one encoder after the other on the same images, each set opened once."""

    def __init__(
        self,
        data: str | Path | None,
        labelled: str | None,
        images: int,
        views: int,
        seed: int,
        download: bool,
        store: bool,
        machine: Machine,
        feedback: Feedback,
    ) -> None:
        self.data, self.labelled, self.images, self.views, self.seed = data, labelled, images, views, seed
        self.download, self.store, self.machine, self.feedback = download, store, machine, feedback
        self.fingerprints: dict[str, str] = {}  # by the names of the sets
        self._sets: dict[str, Source] = {}
        self._labelled: tuple[Source, Source] | None = None

    def measure(self, path: Path) -> Ranked:
        from ..evaluate.knn.vote import knn
        from ..evaluate.label_free.ranking import Ranked, measure, name_of, probe_scores
        from ..evaluate.label_free.view_features import extract_views, view_plan
        from ..evaluate.online_probe import NEIGHBOURS, TEMPERATURE, open_probe
        from .encoders import features_of, load

        encoder, m = load(path, notes=self.feedback.notes), self.machine
        source, name = self._source(encoder), name_of(encoder.path)
        what = f"images of {source.name}, {name}"
        features = features_of(encoder, source, m, self.feedback, what=what, store=self.store)
        views = None
        if self.views:
            views = extract_views(
                encoder.backbone,
                source,
                view_plan(encoder),
                self.views,
                seed=self.seed,
                batch_size=m.batch_size,
                device=m.device,
                dtype=m.dtype,
                progress=self.feedback.counter(f"views of {what}"),
            )
        scores = probe_scores(encoder.path, encoder.meta)
        if self.labelled is not None:
            self._labelled = self._labelled or open_probe(self.labelled, self.images, self.seed, "--labelled")
            train, test = (features_of(encoder, part, m, self.feedback, store=self.store) for part in self._labelled)
            scores["knn"] = knn(train, test, [NEIGHBOURS], [TEMPERATURE])[0].top1
        self.fingerprints[source.name] = features.fingerprint
        n, width = features.x.shape
        method, step = encoder.spec.method.name, encoder.meta.step
        return Ranked(name, encoder.path, method, step, n, width, measure(features.x, views), scores)

    def _source(self, encoder: LoadedEncoder) -> Source:
        from ..data import open_one
        from ..evaluate.online_probe import some
        from .encoders import data_of

        spec = data_of(encoder, self.data, download=self.download)
        if spec.path not in self._sets:
            self._sets[spec.path] = some(open_one(spec), self.images, self.seed)
        return self._sets[spec.path]


def _caveats(ranked: list[Ranked], by: str, views: int, sets: dict[str, str]) -> list[str]:
    """Return what must be known before the numbers are believed."""
    found = []
    if len(sets) > 1:
        found.append("the encoders were measured on different images: give --data to compare them")
    if few := [r for r in ranked if r.images <= r.width]:
        found.append(f"{few[0].images} images for {few[0].width} numbers each bound the ranks: give more --images")
    if views and len({r.method for r in ranked}) > 1:
        found.append("LiDAR and alignment use each run's own views, which differ between methods")
    if by == "lidar" and views < AUTHORS_VIEWS:
        found.append(f"LiDAR takes 1/{views} of the views' noise for signal; its authors use --views {AUTHORS_VIEWS}")
    return found


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in values.items()}
