"""Runs side by side: what their directories say, as a table and as curves in one picture."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..runs.metrics import is_number
from ..spec.parsing import read_spec_file
from .report.history import HINT, metric_lines

CURVES = {
    "top1": "top-1 on the test images, %",
    "value": "score on the test images",
    "probe_knn": "probe: kNN top-1, %",
    "probe_linear": "probe: linear top-1, %",
    "loss": "loss",
}
COLUMNS = ("task", "method", "arch", "data", "labels", "epoch", "loss", "health", *list(CURVES)[:4])


@dataclass(frozen=True)
class Told:
    """What a run's directory tells: facts for a row of the table, and the points of its curves."""

    name: str
    row: dict[str, Any]
    curves: dict[str, list[tuple[float, float]]]  # (epoch, value)


def read_run(path: Path) -> Told:
    """What the directory ``path`` of a pretraining or a fine-tuning tells.

    Raises CheckpointError where it holds no metrics, or metrics that are none.
    """
    lines = metric_lines(path)
    curves = {
        key: [(float(line["epoch"]), float(line[key])) for line in lines if is_number(line.get(key))] for key in CURVES
    }
    row: dict[str, Any] = {"run": str(path), "steps": lines[-1]["step"]}
    for line in lines:  # the newest word on each
        row |= {
            key: line[key]
            for key in ("epoch", "loss", "health", "probe_knn", "probe_linear", "top1", "value")
            if key in line
        }
    row |= _finetuned(path) if (path / "result.json").is_file() else _pretrained(path)
    return Told(path.name or str(path), row, {key: points for key, points in curves.items() if points})


def names(runs: Sequence[Told]) -> list[str]:
    """Short names of the runs, the whole path where two would be alike."""
    short = [run.name for run in runs]
    return [run.row["run"] if short.count(run.name) > 1 else run.name for run in runs]


def table(runs: Sequence[Told]) -> str:
    """A line for each run, with the columns of which one of them says something."""
    shown = [key for key in COLUMNS if any(run.row.get(key) is not None for run in runs)]
    rows = [["run", *shown]]
    rows += [[name, *(_cell(key, run.row) for key in shown)] for name, run in zip(names(runs), runs, strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def plot(runs: Sequence[Told], suffix: str) -> bytes:
    """The curves of ``runs`` as a file of kind ``suffix`` (png, svg or pdf): a panel for each quantity, over epochs."""
    from matplotlib.figure import Figure

    panels = [key for key in CURVES if any(key in run.curves for run in runs)]
    figure = Figure(figsize=(6 * len(panels), 4.2), layout="constrained")
    for axes, key in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for i, (name, run) in enumerate(zip(names(runs), runs, strict=True)):
            points = run.curves.get(key, [])
            scale = 1.0 if key in ("loss", "value") else 100.0
            style = {"color": f"C{i % 10}", "linestyle": ("-", "--", ":", "-.")[i // 10 % 4]}
            if points:
                label = name.replace("$", r"\$")  # a name is no formula
                marker = "o" if len(points) < 30 else ""
                x, y = [e for e, _ in points], [scale * v for _, v in points]
                axes.plot(x, y, label=label, marker=marker, markersize=3, **style)
        axes.set_xlabel("epoch")
        axes.set_ylabel(CURVES[key])
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix, dpi=120, metadata={"Date": None} if suffix == "svg" else None)
    return buffer.getvalue()


def _finetuned(path: Path) -> dict[str, Any]:
    try:
        result = json.loads((path / "result.json").read_text("utf-8"))
        protocol = result["protocol"]
        return {
            "task": "finetune",
            "method": "scratch" if protocol["from_scratch"] else result["checkpoint"]["method"],
            "arch": protocol["arch"],
            "data": result["data"]["train"]["name"],
            "labels": protocol["labels"],
            **({"value": float(result["value"])} if "value" in result else {"top1": float(result["top1"])}),
            "interval": [float(x) for x in result["interval"]],
            "n_train": int(result["n_train"]),
            "n_test": int(result["n_test"]),
        }
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise CheckpointError(f"{path}: its result.json is not one of `sslctl finetune`", HINT) from e


def _pretrained(path: Path) -> dict[str, Any]:
    if not (path / "spec.yaml").is_file():
        return {"task": "finetune"}  # of which no result stands yet
    spec = read_spec_file(path / "spec.yaml")
    sections = {key: value if isinstance(value, dict) else {} for key, value in spec.items()}
    return {
        "task": "pretrain",
        "method": sections.get("method", {}).get("name"),
        "arch": sections.get("backbone", {}).get("arch"),
        "data": sections.get("data", {}).get("path"),
    }


def _cell(key: str, row: dict[str, Any]) -> str:
    value = row.get(key)
    if value is None:
        return "-"
    if key in ("top1", "probe_knn", "probe_linear"):
        low_high = row.get("interval") if key == "top1" else None
        share = f"{100 * value:.1f} %"
        return share if low_high is None else f"{share} ({100 * low_high[0]:.1f} to {100 * low_high[1]:.1f})"
    if key == "data":
        return Path(value).name or str(value)  # the whole path stands in the JSON
    return f"{value:.4g}" if is_number(value) else str(value)
