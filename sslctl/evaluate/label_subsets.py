"""Evaluation with few labels: a share of each class, a number of each, or a published list; several draws, averaged."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.source import Source, printable
from ..errors import DataError, SpecError
from .features.extract import FeatureSet
from .repeats import average
from .score import Score

Evaluate = Callable[[FeatureSet, FeatureSet], list[Score]]
DRAWS = 5
EXAMPLE = "for example --labels 0.01, --labels 10-per-class, or a text file with one image name a line"


@dataclass(frozen=True)
class FewLabels:
    """Which labels of the training set may be used: one of ``share``, ``per_class`` and ``names`` is set."""

    text: str
    share: float | None = None
    per_class: int | None = None
    names: tuple[str, ...] = ()

    @property
    def draws(self) -> int:
        return 1 if self.names or self.share == 1 else DRAWS

    def average(self, scores: Sequence[Score], seed: int, notes: Sequence[str]) -> Score:
        """Return one score for those of several draws with ``seed``."""
        return average(scores, "draws_top1", {"labels": self.text, "draws": len(scores), "labels_seed": seed}, notes)


def parse_labels(text: str) -> FewLabels:
    """Parse ``--labels``: a share of each class, ``N-per-class``, or a file that lists images.

    Raises SpecError for anything else, DataError for a list that cannot be read.
    """
    if os.path.isfile(text):
        return FewLabels(text, names=_read_list(Path(text)))
    number, _, rest = text.partition("-")
    if rest == "per-class" and number.isdecimal() and 0 < int(number) < 10**9:
        return FewLabels(text, per_class=int(number))
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        hint = f"--labels {text}-per-class, or a share such as 0.01" if text.isdecimal() else EXAMPLE
        raise SpecError(f"--labels '{text}': not a share within (0, 1], not N-per-class, not a file", hint)
    return FewLabels(text, share=share)


def choose(few: FewLabels, labels: Tensor, seed: int, draw: int) -> Tensor:
    """Return rows of ``labels`` (n,), ascending: of each class the share or number that ``few`` says, at least one.

    A function of (seed, draw) and the labels alone; and a smaller share is part of a larger one.
    """
    order = torch.from_numpy(np.random.default_rng([seed, draw]).permutation(len(labels)))
    chosen = []
    for c in torch.unique(labels):
        own = order[labels[order] == c]
        n = few.per_class if few.share is None else max(1, round(few.share * len(own)))
        chosen.append(own[:n])
    return torch.cat(chosen).sort().values


def find_listed(few: FewLabels, source: Source, index: Tensor) -> tuple[Tensor, int]:
    """Return rows of ``index`` (n,), positions in ``source``, that the list names, and how many of its lines name none.

    Raises DataError where a line means several images, or where no line means any.
    """
    found = find_named(few.names, source, index, few.text)
    rows = {row for row in found if row is not None}
    if not rows:
        raise DataError(f"{few.text}: none of its {len(few.names)} lines is an image of {source.name}", EXAMPLE)
    return torch.tensor(sorted(rows)), sum(row is None for row in found)


def find_named(names: Sequence[str], source: Source, index: Tensor, title: str) -> list[int | None]:
    """Return, for each of ``names``, the row of ``index`` (n,) of the image that it means, or None.

    A name is a path from anywhere down, or a bare file name where that is enough to tell (the lists of SimCLR's
    1 % and 10 % of ImageNet, google-research/simclr imagenet_subsets, are of this kind).
    Raises DataError where one means several images.
    """
    at: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for row, i in enumerate(index.tolist()):
        name = source.item_name(i)
        at[name.rpartition("/")[2]].append((name, row))
    rows: list[int | None] = []
    for line in names:
        found = [row for name, row in at[line.rpartition("/")[2]] if f"/{name}".endswith(f"/{line.lstrip('./')}")]
        if len(found) > 1:
            raise DataError(f"{title}: '{line}' means {len(found)} images of {source.name}", "write CLASS/FILE")
        rows.append(found[0] if found else None)
    return rows


def over_draws(evaluate: Evaluate, few: FewLabels, source: Source, seed: int, draws: int | None = None) -> Evaluate:
    """Return ``evaluate`` with few labels of ``source``: mean scores over ``draws``, with their spread."""

    def run(train: FeatureSet, test: FeatureSet) -> list[Score]:
        chosen, notes = _draw(few, source, train.labels, train.index, seed, draws or few.draws)
        parts = [evaluate(train.take(rows), test) for rows in chosen]
        return [few.average(list(same), seed, notes) for same in zip(*parts, strict=True)]

    return run


@dataclass(frozen=True)
class Drawn:
    """What few labels leave of a labelled set, for each draw; all of it where there is no such limit."""

    parts: list[Source]
    few: FewLabels | None = None
    seed: int = 0
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: Source, few: FewLabels | None, seed: int, draws: int) -> Drawn:
        if few is None:
            return cls([source])
        chosen, notes = _draw(few, source, torch.as_tensor(source.labels), torch.arange(len(source)), seed, draws)
        return cls([source.take(rows.numpy()) for rows in chosen], few, seed, tuple(notes))

    def average(self, scores: Sequence[Score]) -> Score:
        """Return one score for those of all parts."""
        return scores[0] if self.few is None else self.few.average(scores, self.seed, self.notes)


def _draw(
    few: FewLabels, source: Source, labels: Tensor, index: Tensor, seed: int, draws: int
) -> tuple[list[Tensor], list[str]]:
    """Return rows of ``labels`` and ``index`` (n,) for each draw, and notes."""
    notes: list[str] = []
    if few.names:
        rows, missing = find_listed(few, source, index)
        chosen = [rows]
        if missing:
            notes.append(f"{missing} of {len(few.names)} lines of {few.text} are not images of {source.name}")
    else:
        chosen = [choose(few, labels, seed, draw) for draw in range(draws)]
    short = torch.bincount(labels[chosen[0]], minlength=len(source.classes))
    if few.per_class and bool((lacking := short < few.per_class).any()):
        notes.append(f"{int(lacking.sum())} classes have fewer than {few.per_class} images; all of theirs are used")
    if without := int((short == 0).sum()):
        notes.append(f"{without} of {len(source.classes)} classes have no labelled image")
    return chosen, notes


def _read_list(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"--labels {path}: cannot be read as a list of images: {e}", EXAMPLE) from e
    # Names as Source.item_name shows them, so that what is not printable compares too.
    names = tuple(printable(line.split()[0] if "\t" in line else line.strip()) for line in lines if line.strip())
    if not names:
        raise DataError(f"--labels {path}: the list is empty", EXAMPLE)
    return names
