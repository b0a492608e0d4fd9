"""A run by the files of its directory: its spec, its metric lines as curves, its sessions, how it ended."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import CheckpointError, SslctlError
from ...runs.metrics import FILE, is_number, read_metrics, read_objects
from ...spec.parsing import check_spec, read_spec_file
from ...spec.schema import Spec

Data = dict[str, Any]
HINT = "give directories that `sslctl pretrain` or `sslctl finetune` printed"
NOT_CURVES = {"step", "epoch", "health", "rank_of", "probe_seconds"}
MOST = 400  # points of a curve that are kept


class Point(NamedTuple):
    step: int
    epoch: float
    value: float


Curve = list[Point]


@dataclass(frozen=True)
class History:
    """A run by its files; ``spec`` is None where it cannot be read, ``spec_yaml`` is what its file holds."""

    path: Path
    lines: list[Data]
    spec: Spec | None
    spec_yaml: Data
    sessions: list[Data]  # what sessions.jsonl holds: starts, and ends with their state
    unreadable: int  # images

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """Every number of the metric lines, each at most about ``MOST`` points that keep the extremes."""
        found: dict[str, Curve] = {}
        for line in self.lines:
            for key, value in line.items():
                if key not in NOT_CURVES and is_number(value):
                    found.setdefault(key, []).append(Point(int(line["step"]), float(line["epoch"]), float(value)))
        return {key: thinned(curve) for key, curve in found.items()}

    def latest(self, key: str, default: Any = None) -> Any:
        """The newest value under ``key``."""
        return next((line[key] for line in reversed(self.lines) if key in line), default)

    @property
    def start(self) -> Data:
        """The newest session's beginning: where it ran, and what it knew of the run's length."""
        return next((s for s in reversed(self.sessions) if s.get("event") == "start"), {})

    @property
    def end(self) -> Data:
        """How the newest session ended; empty while it goes, and where it was killed."""
        return self.sessions[-1] if self.sessions and self.sessions[-1].get("event") == "end" else {}


def read_history(path: Path) -> History:
    """The run in the directory ``path``. Raises CheckpointError where it holds no metrics."""
    lines = metric_lines(path)
    spec_yaml, spec = {}, None
    with contextlib.suppress(SslctlError):
        spec_yaml = read_spec_file(path / "spec.yaml")
        spec = check_spec(spec_yaml)
    sessions = read_objects(path / "sessions.jsonl")
    return History(path, lines, spec, spec_yaml, sessions, len(read_objects(path / "bad_images.jsonl")))


def metric_lines(path: Path) -> list[Data]:
    """Return the metric lines in the run directory ``path``. Raises CheckpointError where there is none at all."""
    if not (path / FILE).is_file():
        raise CheckpointError(f"{path}: no {FILE} that can be read", HINT)
    lines = [line for line in read_metrics(path) if is_number(line.get("epoch"))]
    if not lines:
        raise CheckpointError(f"{path}: its {FILE} holds no line yet", HINT)
    return lines


def thinned(curve: Curve, most: int = MOST) -> Curve:
    """At most about ``most`` of the points: the first, the last, and of each stretch between its least and largest."""
    if len(curve) <= most:
        return curve
    kept = [curve[0]]
    inner, parts = curve[1:-1], most // 2
    for i in range(parts):
        part = inner[i * len(inner) // parts : (i + 1) * len(inner) // parts]
        ends = {min(part, key=lambda p: p.value), max(part, key=lambda p: p.value)} if part else set()
        kept += sorted(ends)
    return [*kept, curve[-1]]
