"""Encoders in the order of what needs no labels, and how far that order agrees with scores that do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ...errors import CheckpointError
from ...runs.checkpoint import find, read_meta
from ...runs.meta import Meta
from ...runs.metrics import read_metrics
from .correlation import kendall, spearman
from .measures import alignment, alpha_req, lidar, nesum, rankme, spectrum, uniformity

FEWEST = 3  # encoders that agreement needs


class Measure(NamedTuple):
    """A measure's name for people, its paper, and what of its value is higher for the better of two encoders."""

    title: str
    source: str
    goodness: Callable[[float], float]
    by_views: bool = False  # of several views of each image


MEASURES = {
    "rankme": Measure("RankMe", "Garrido et al. 2023", lambda v: v),
    "lidar": Measure("LiDAR", "Thilak et al. 2024", lambda v: v, by_views=True),
    "alpha": Measure("alpha-ReQ", "Agrawal et al. 2022; best near 1", lambda v: -abs(v - 1)),
    "nesum": Measure("NESum", "He & Ozay 2022", lambda v: v),
    "alignment": Measure("alignment", "Wang & Isola 2020; lower is better", lambda v: -v, by_views=True),
    "uniformity": Measure("uniformity", "Wang & Isola 2020; lower is better", lambda v: -v),
}


@dataclass
class Ranked:
    """An encoder with its measures, NaN where one is undefined, and scores with labels in [0, 1]."""

    name: str
    checkpoint: Path
    method: str
    step: int
    images: int
    width: int
    measures: dict[str, float]
    scores: dict[str, float] = field(default_factory=dict)

    def goodness(self, measure: str) -> float:
        value = MEASURES[measure].goodness(self.measures.get(measure, math.nan))
        return -math.inf if math.isnan(value) else value


def find_checkpoints(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return the checkpoints that ``paths`` mean, and a line for every one that has none.

    A run directory means its newest; a folder of checkpoints every one in it, by step, the same weights once; what is
    not a path of ours is left as it is. Raises CheckpointError where none is left.
    """
    found: list[Path] = []
    skipped: list[str] = []
    for path in dict.fromkeys(paths):
        try:
            if path.is_dir() and not (path / "checkpoints").is_dir() and any(path.glob("*.safetensors")):
                found += _all_in(path)
            else:
                found.append(find(path) if path.is_dir() else path)
        except CheckpointError as e:
            skipped.append(e.message)
    if not found:
        raise CheckpointError("\n".join(skipped), "give runs or checkpoints, for example runs/*")
    return list(dict.fromkeys(found)), skipped


def _all_in(folder: Path) -> list[Path]:
    metas: dict[str, tuple[int, Path]] = {}
    for path in sorted(folder.glob("*.safetensors")):  # of one step's names step-* is the last
        meta = read_meta(path)
        metas[meta.sha256] = meta.step, path
    return [path for _, path in sorted(metas.values())]


def name_of(checkpoint: Path) -> str:
    """Return the run and the file, or what there is of both."""
    inside = checkpoint.parent.name == "checkpoints"
    return f"{checkpoint.parent.parent.name}/{checkpoint.stem}" if inside else checkpoint.name


def measure(x: Tensor, views: Tensor | None) -> dict[str, float]:
    """Return all MEASURES of features ``x`` (n, d), and of ``views`` (n, q, d) if any; NaN where undefined."""
    values = spectrum(x)
    found = {"rankme": rankme(x), "alpha": alpha_req(values), "nesum": nesum(values), "uniformity": uniformity(x)}
    if views is not None:
        found |= {"lidar": lidar(views), "alignment": alignment(views)}
    return {key: found[key] for key in MEASURES if key in found}


def probe_scores(checkpoint: Path, meta: Meta) -> dict[str, float]:
    """Return the online probe's scores of these weights, from the checkpoint or the metric line of its step."""
    lines: list[dict[str, Any]] = [dict(meta.probe or {})]
    if checkpoint.parent.name == "checkpoints":
        lines += [line for line in read_metrics(checkpoint.parent.parent) if line["step"] == meta.step]
    found: dict[str, float] = {}
    for line in lines:
        found |= {key: float(line[key]) for key in ("probe_knn", "probe_linear") if key in line}
    return found


class Agreement(NamedTuple):
    """How far the order by a measure is that by a score, for ``n`` encoders; 1 is the same order, -1 the opposite."""

    spearman: float
    kendall: float
    n: int


def agreement(ranked: Sequence[Ranked]) -> dict[str, dict[str, Agreement]]:
    """Score → measure → agreement, over the encoders that have both, where these are ``FEWEST`` or more."""
    found: dict[str, dict[str, Agreement]] = {}
    for score in dict.fromkeys(key for r in ranked for key in r.scores):
        for key in MEASURES:
            pairs = [(r.goodness(key), r.scores[score]) for r in ranked if score in r.scores]
            pairs = [pair for pair in pairs if math.isfinite(pair[0])]
            if len(pairs) >= FEWEST:
                a, b = zip(*pairs, strict=True)
                found.setdefault(score, {})[key] = Agreement(spearman(a, b), kendall(a, b), len(pairs))
    return found
