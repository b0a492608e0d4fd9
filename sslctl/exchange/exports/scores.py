"""How good an exported encoder is known to be: probes of its run, and results of the scoring commands."""

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
class Row:
    """One score: by which protocol, on which images, top-1 in [0, 1], and its 95 % interval where it is known."""

    protocol: str
    data: str
    top1: float
    interval: tuple[float, float] | None = None

    def __str__(self) -> str:
        beside = "" if self.interval is None else " ({:.1f} to {:.1f})".format(*(100 * x for x in self.interval))
        return f"{100 * self.top1:.1f} %{beside}"


def of_run(encoder: LoadedEncoder) -> list[Row]:
    """The newest probe scores in the run's metrics up to the checkpoint's step; empty where there are none."""
    if encoder.path.parent.name != "checkpoints":
        return []
    found: dict[str, float] = {}
    for line in read_metrics(encoder.path.parent.parent, encoder.meta.step):
        found |= {key: float(line[key]) for key in PROBES if is_number(line.get(key))}
    data = PurePath(encoder.spec.run.probe_data or encoder.spec.data.path).name
    return [Row(PROBES[key], data, value) for key, value in found.items()]


def of_files(encoder: LoadedEncoder, paths: Sequence[Path]) -> list[Row]:
    """The results in files of JSON. SpecError for what is not a score, and for a score of another checkpoint."""
    return [_row(encoder, path) for path in paths]


def _row(encoder: LoadedEncoder, path: Path) -> Row:
    try:
        result: dict[str, Any] = json.loads(path.read_text("utf-8"))
        of, (low, high) = result["checkpoint"], result["interval"]
        settings = {key: value for key, value in result["protocol"].items() if isinstance(value, str | int | float)}
        words = ", ".join(f"{key} {value}" for key, value in settings.items() if key not in ("name", "arch"))
        counts = f"{int(result['n_train'])} training and {int(result['n_test'])} test images"
        protocol = f"{result['task']}: {words}, {counts} of {int(result['classes'])} classes"
        data = PurePath(result["data"]["test"]["name"]).name
        row = Row(protocol, data, float(result["top1"]), (float(low), float(high)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise SpecError(f"--scores {path}: not a score of sslctl ({type(e).__name__}: {e})", HINT) from e
    same = (encoder.spec.method.name, encoder.meta.step)
    if (of.get("method"), of.get("step")) != same:
        raise SpecError(
            f"--scores {path}: a score of {of.get('method')} at step {of.get('step')}, not of {same[0]} at {same[1]}",
            HINT,
        )
    return row
