"""Targets other than classes: several labels an image, or numbers, from a CSV; read, matched to images, scored."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..data import open_one
from ..data.listing import PATH_COLUMNS, read_rows
from ..data.opening import has_own_val, split_source
from ..data.source import Source, printable
from ..errors import DataError
from ..spec.schema import DataSpec
from .label_subsets import find_named
from .score import RESAMPLES

EXAMPLE = "write a header, then rows such as photo1.jpg,1,0,1"
CHUNK = 100  # resamples at a time


@dataclass(frozen=True)
class Table:
    """A row of ``values`` (n, C) for each of ``names``; ``multilabel`` where all of them are 0 or 1."""

    path: str
    names: list[str]
    columns: list[str]
    values: Tensor

    @property
    def kind(self) -> Literal["multilabel", "regression"]:
        return "multilabel" if bool(((self.values == 0) | (self.values == 1)).all()) else "regression"


@dataclass(frozen=True)
class TargetScore:
    """mAP of labels, or mean R2 of numbers, with its 95 % interval (bootstrap over test images)."""

    metric: Literal["mAP", "R2"]
    value: float
    interval: tuple[float, float]
    columns: list[dict[str, Any]]
    n_train: int
    n_test: int
    protocol: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        keys = ("metric", "value", "columns", "n_train", "n_test")
        return {key: getattr(self, key) for key in keys} | {
            "interval": list(self.interval),
            "protocol": dict(self.protocol),
        }

    def __str__(self) -> str:
        return f"{self.metric} {self.value:.3f} ({self.interval[0]:.3f} to {self.interval[1]:.3f})"


def read_table(path: str) -> Table:
    """Return the targets in a CSV: a header, a column of image names (path, file, image, …, or the first), numbers.

    Raises DataError naming the line of what is not a number.
    """
    rows = read_rows(path)
    if len(rows) < 2 or len(rows[0][1]) < 2:
        raise DataError(f"--targets {printable(path)}: no header with rows below it", EXAMPLE)
    header = [cell.strip() for cell in rows[0][1]]
    at = next((i for i, word in enumerate(header) if word.lower() in PATH_COLUMNS), 0)
    values, names = [], []
    for line, row in rows[1:]:
        try:
            numbers = [float(cell) for i, cell in enumerate(row) if i != at]
        except ValueError:
            numbers = []
        if len(row) != len(header) or not all(map(math.isfinite, numbers)) or not numbers:
            raise DataError(f"--targets {printable(path)} line {line}: not {len(header) - 1} numbers", EXAMPLE)
        names.append(printable(row[at].strip()))
        values.append(numbers)
    if len(set(names)) < len(names):
        raise DataError(f"--targets {printable(path)}: an image has two rows", "leave one of them out")
    return Table(path, names, [name for i, name in enumerate(header) if i != at], torch.tensor(values))


def split_by(table: Table) -> Callable[[DataSpec, int], tuple[Source, Source]]:
    """Opens images that have a row in ``table``, to learn from and to test on; ``labels`` are then rows of it.

    The parts are those of ``open_pair``, except that a set which is one is split whatever its class folders say.
    """

    def opened(spec: DataSpec, seed: int) -> tuple[Source, Source]:
        train = open_one(spec)
        if spec.val is not None:
            val = open_one(spec.model_copy(update={"path": spec.val}), "val")
        elif has_own_val(spec.path):
            val = open_one(spec, "val")
        else:
            whole = copy.copy(train)
            whole.labels = None
            train, val = split_source(whole, spec.val_fraction, seed)
        return _with_rows(train, table), _with_rows(val, table)

    return opened


def _with_rows(source: Source, table: Table) -> Source:
    found = find_named(table.names, source, torch.arange(len(source)), table.path)
    row_of = {i: row for row, i in enumerate(found) if i is not None}
    if len(row_of) < 2:
        few = f"{len(row_of)} of its {len(table.names)} rows are images of {source.name}"
        raise DataError(f"--targets {printable(table.path)}: {few}", "write names as they end, FOLDER/FILE or FILE")
    places = np.array(sorted(row_of))
    part = source.take(places)
    part.labels = np.array([row_of[i] for i in places.tolist()], np.int64)
    part.classes = []
    part.notes = [*source.notes]
    if len(row_of) < len(source):
        part.notes.append(f"{len(source) - len(row_of)} of {len(source)} images of {source.name} have no row; left out")
    return part


def score_targets(
    predicted: Tensor,
    actual: Tensor,
    table: Table,
    n_train: int,
    protocol: Mapping[str, Any],
    notes: tuple[str, ...] = (),
) -> TargetScore:
    """Score predictions (n, C) of the ``actual`` targets (n, C)."""
    from sklearn.metrics import average_precision_score

    a, b = predicted.double().numpy(), actual.double().numpy()
    columns: list[dict[str, Any]] = []
    if table.kind == "multilabel":
        known = [j for j in range(b.shape[1]) if b[:, j].any()]
        for j in range(b.shape[1]):
            ap = float(average_precision_score(b[:, j], a[:, j])) if j in known else None
            columns.append({"name": table.columns[j], "images": int(b[:, j].sum()), "ap": ap})
        resampled, key = _precisions(a[:, known], b[:, known]), "ap"
    else:
        known = [j for j in range(b.shape[1]) if b[:, j].std() > 0]
        for j in range(b.shape[1]):
            error = a[:, j] - b[:, j]
            r2 = float(1 - (error**2).mean() / b[:, j].var()) if j in known else None
            columns.append({"name": table.columns[j], "r2": r2, "mae": float(np.abs(error).mean())})
        resampled, key = _determinations(a[:, known], b[:, known]), "r2"
    if not known:
        raise DataError(f"--targets {printable(table.path)}: no column varies among the test images", EXAMPLE)
    if len(known) < len(columns):
        notes = (*notes, f"{len(columns) - len(known)} columns do not vary among the test images and are left out")
    value = float(np.mean([columns[j][key] for j in known]))
    low, high = np.nanpercentile(resampled, (2.5, 97.5))
    metric: Literal["mAP", "R2"] = "mAP" if key == "ap" else "R2"
    return TargetScore(metric, value, (float(low), float(high)), columns, n_train, len(b), protocol, notes)


def _weights(n: int) -> list[np.ndarray[Any, Any]]:
    """Return how often each of n images is drawn, (CHUNK, n) at a time, RESAMPLES in all."""
    rng = np.random.default_rng(0)
    return [rng.multinomial(n, np.full(n, 1 / n), size=CHUNK) for _ in range(RESAMPLES // CHUNK)]


def _precisions(predicted: np.ndarray[Any, Any], actual: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the mean average precision of each resample."""
    order = np.argsort(-predicted, axis=0, kind="stable")
    found = []
    for weights in _weights(len(predicted)):
        columns = []
        for j in range(predicted.shape[1]):
            drawn = weights[:, order[:, j]].astype(np.float64)
            hits = drawn * actual[order[:, j], j]
            precision = hits.cumsum(1) / np.maximum(drawn.cumsum(1), 1)
            with np.errstate(invalid="ignore"):
                columns.append((hits * precision).sum(1) / hits.sum(1))
        found.append(_mean_of_known(np.array(columns)))
    return np.concatenate(found)


def _mean_of_known(columns: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the mean over the rows that are numbers; NaN where none is."""
    known = np.isfinite(columns)
    return np.where(known.any(0), np.where(known, columns, 0).sum(0) / np.maximum(known.sum(0), 1), np.nan)


def _determinations(predicted: np.ndarray[Any, Any], actual: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the mean R2 of each resample."""
    n, centred = len(predicted), actual - actual.mean(0)
    found = []
    for weights in _weights(n):
        left = weights @ (predicted - actual) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append((1 - left / (weights @ centred**2 - (weights @ centred) ** 2 / n)).mean(1))
    return np.concatenate(found)
