"""``sslctl compare``: runs side by side, as a table and as curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import output

if TYPE_CHECKING:
    from ..tasks.results import ComparedRun, Comparison

COLUMNS = (
    "task", "method", "arch", "data", "labels", "epoch", "loss", "health", "top1", "value", "probe_knn", "probe_linear"
)  # fmt: skip


def compare(result: Comparison) -> str:
    """Compare runs: their scores in a table, their curves in one picture.

    Takes directories of pretraining (loss, and the online probe) and of fine-tuning (accuracy on the test images).

    Examples:

      sslctl compare runs/scratch runs/tuned --out scratch-or-not.png

      sslctl compare runs/* --json
    """
    shown = [key for key in COLUMNS if any(getattr(run, key) is not None for run in result.runs)]
    names = [Path(run.run).name for run in result.runs]
    rows = [
        [run.run if names.count(name) > 1 else name, *(_cell(key, getattr(run, key), run) for key in shown)]
        for name, run in zip(names, result.runs, strict=True)
    ]
    return output.table(["run", *shown], rows)


def _cell(key: str, value: Any, run: ComparedRun) -> str:
    if value is None:
        return "-"
    if key in ("top1", "probe_knn", "probe_linear"):
        interval = run.interval if key == "top1" else None
        share = f"{100 * value:.1f} %"
        return share if interval is None else f"{share} ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
    if key == "data":
        return Path(value).name or str(value)  # the whole path is in the JSON
    return f"{value:.4g}" if isinstance(value, float) else str(value)
