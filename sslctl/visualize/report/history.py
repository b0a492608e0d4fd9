"""The history of a run from its directory: spec, metrics as curves, sessions, and how it ended."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import CheckpointError, SslctlError
from ...runs.metrics import FILE, is_number, read_metrics, read_objects
from ...spec.parsing import check_spec, read_spec_file
from ...spec.schema import Spec

Record = dict[str, Any]
HINT = "give directories that `sslctl pretrain` or `sslctl finetune` printed"
NOT_CURVES = {"step", "epoch", "health", "rank_of", "probe_seconds"}
MAX_POINTS = 400  # of a curve


class Point(NamedTuple):
    """A point of a curve."""

    step: int
    epoch: float
    value: float


Curve = list[Point]


@dataclass(frozen=True)
class History:
    """The history of a run; ``spec`` is None if spec.yaml, whose content is ``spec_yaml``, is not valid."""

    path: Path
    lines: list[Record]
    spec: Spec | None
    spec_yaml: Record
    sessions: list[Record]  # lines of sessions.jsonl: starts, and ends with their state
    unreadable: int  # images

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """Return the curve of every number in the metrics, each thinned to about ``MAX_POINTS`` points."""
        curves: dict[str, Curve] = {}
        for line in self.lines:
            for key, value in line.items():
                if key not in NOT_CURVES and is_number(value):
                    curves.setdefault(key, []).append(Point(int(line["step"]), float(line["epoch"]), float(value)))
        return {key: thin(curve) for key, curve in curves.items()}

    def latest(self, key: str, default: Any = None) -> Any:
        """Return the newest value of ``key``."""
        return next((line[key] for line in reversed(self.lines) if key in line), default)

    @property
    def start(self) -> Record:
        """Return the start of the newest session: its machine and the length of the run."""
        return next((s for s in reversed(self.sessions) if s.get("event") == "start"), {})

    @property
    def end(self) -> Record:
        """Return the end of the newest session, empty if it is running or was killed."""
        return self.sessions[-1] if self.sessions and self.sessions[-1].get("event") == "end" else {}


def read_history(path: Path) -> History:
    """Read the run in ``path``. Raises CheckpointError if it has no metrics."""
    lines = read_metric_lines(path)
    spec_yaml, spec = {}, None
    with contextlib.suppress(SslctlError):
        spec_yaml = read_spec_file(path / "spec.yaml")
        spec = check_spec(spec_yaml)
    sessions = read_objects(path / "sessions.jsonl")
    return History(path, lines, spec, spec_yaml, sessions, len(read_objects(path / "bad_images.jsonl")))


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return the names of run directories, and the whole path of those with the same name."""
    names = [path.resolve().name for path in paths]
    return [str(path) if names.count(name) > 1 else name for path, name in zip(paths, names, strict=True)]


def read_metric_lines(path: Path) -> list[Record]:
    """Read the metric lines of the run in ``path``. Raises CheckpointError if there are none."""
    if not (path / FILE).is_file():
        raise CheckpointError(f"{path}: has no {FILE}", HINT)
    lines = [line for line in read_metrics(path) if is_number(line.get("epoch"))]
    if not lines:
        raise CheckpointError(f"{path}: its {FILE} has no line yet", HINT)
    return lines


def thin(curve: Curve, most: int = MAX_POINTS) -> Curve:
    """Keep about ``most`` points: the first, the last, and the least and largest of equal parts between."""
    if len(curve) <= most:
        return curve
    points = [curve[0]]
    inner, parts = curve[1:-1], most // 2
    for i in range(parts):
        part = inner[i * len(inner) // parts : (i + 1) * len(inner) // parts]
        ends = {min(part, key=lambda p: p.value), max(part, key=lambda p: p.value)} if part else set()
        points += sorted(ends)
    return [*points, curve[-1]]
