"""Scores for the card of an export: online probes of the run, and results of the scoring commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from ...errors import SpecError
from ...runs.encoder import LoadedEncoder
from ...runs.metrics import is_number, read_metrics

PROBES = {
    "probe_knn": "online probe: 20 nearest neighbours, temperature 0.07",
    "probe_linear": "online probe: linear, L-BFGS, L2 0.01",
}
HINT = "give what `sslctl knn RUN --json`, linear-eval or finetune printed for this checkpoint"


@dataclass(frozen=True)
class Score:
    """A score: its protocol, dataset, top-1 in [0, 1] and, if known, 95 % interval."""

    protocol: str
    data: str
    top1: float
    interval: tuple[float, float] | None = None

    def __str__(self) -> str:
        interval = "" if self.interval is None else " ({:.1f} to {:.1f})".format(*(100 * x for x in self.interval))
        return f"{100 * self.top1:.1f} %{interval}"


def probe_scores(encoder: LoadedEncoder) -> list[Score]:
    """Return the newest probe scores in the run's metrics up to the checkpoint's step."""
    if encoder.path.parent.name != "checkpoints":
        return []
    newest: dict[str, float] = {}
    for line in read_metrics(encoder.path.parent.parent, encoder.meta.step):
        newest |= {key: float(line[key]) for key in PROBES if is_number(line.get(key))}
    data = PurePath(encoder.spec.run.probe_data or encoder.spec.data.path).name
    return [Score(PROBES[key], data, value) for key, value in newest.items()]


def read_scores(encoder: LoadedEncoder, paths: Sequence[Path]) -> list[Score]:
    """Read JSON results of the scoring commands. Raises SpecError for anything else or another checkpoint's score."""
    return [_read_score(encoder, path) for path in paths]


def _read_score(encoder: LoadedEncoder, path: Path) -> Score:
    try:
        result: dict[str, Any] = json.loads(path.read_text("utf-8"))
        checkpoint, (low, high) = result["checkpoint"], result["interval"]
        settings = {key: value for key, value in result["protocol"].items() if isinstance(value, str | int | float)}
        words = ", ".join(f"{key} {value}" for key, value in settings.items() if key not in ("name", "arch"))
        counts = f"{int(result['n_train'])} training and {int(result['n_test'])} test images"
        protocol = f"{result['task']}: {words}, {counts} of {int(result['classes'])} classes"
        data = PurePath(result["data"]["test"]["name"]).name
        score = Score(protocol, data, float(result["top1"]), (float(low), float(high)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise SpecError(f"--scores {path}: not a score of sslctl ({type(e).__name__}: {e})", HINT) from e
    expected = (encoder.spec.method.name, encoder.meta.step)
    if (checkpoint.get("method"), checkpoint.get("step")) != expected:
        raise SpecError(
            f"--scores {path}: a score of {checkpoint.get('method')} at step {checkpoint.get('step')}, not of "
            f"{expected[0]} at {expected[1]}",
            HINT,
        )
    return score
