"""Runs side by side: their settings and newest metrics, and a picture of their curves."""

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
from .report.history import HINT, read_metric_lines, short_names

CURVES = {
    "top1": "top-1 on the test images, %",
    "value": "score on the test images",
    "probe_knn": "probe: kNN top-1, %",
    "probe_linear": "probe: linear top-1, %",
    "loss": "loss",
}


@dataclass(frozen=True)
class RunSummary:
    """A run in a comparison: its row of the table and the points of its curves."""

    path: Path
    row: dict[str, Any]
    curves: dict[str, list[tuple[float, float]]]  # (epoch, value)


def read_run(path: Path) -> RunSummary:
    """Read a run of pretraining or fine-tuning. Raises CheckpointError if it has no metrics."""
    lines = read_metric_lines(path)
    curves = {
        key: [(float(line["epoch"]), float(line[key])) for line in lines if is_number(line.get(key))] for key in CURVES
    }
    row: dict[str, Any] = {"run": str(path), "steps": lines[-1]["step"]}
    for line in lines:  # the newest value of each
        row |= {key: line[key] for key in ("epoch", *CURVES) if is_number(line.get(key))}
        row |= {"health": line["health"]} if isinstance(line.get("health"), str) else {}
    row |= _finetuning_row(path) if (path / "result.json").is_file() else _pretraining_row(path)
    return RunSummary(path, row, {key: points for key, points in curves.items() if points})


def plot(runs: Sequence[RunSummary], suffix: str) -> bytes:
    """Plot curves over epochs, a panel for each quantity, as the bytes of a ``suffix`` file: png, svg or pdf."""
    from matplotlib.figure import Figure

    panels = [key for key in CURVES if any(key in run.curves for run in runs)]
    figure = Figure(figsize=(6 * len(panels), 4.2), layout="constrained")
    for axes, key in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for i, (name, run) in enumerate(zip(short_names([run.path for run in runs]), runs, strict=True)):
            points = run.curves.get(key, [])
            scale = 1.0 if key in ("loss", "value") else 100.0
            style = {"color": f"C{i % 10}", "linestyle": ("-", "--", ":", "-.")[i // 10 % 4]}
            if points:
                label = name.replace("$", r"\$")  # matplotlib takes $ for a formula
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


def _finetuning_row(path: Path) -> dict[str, Any]:
    try:
        result = json.loads((path / "result.json").read_text("utf-8"))
        protocol = result["protocol"]
        return {
            "task": "finetune",
            "method": "scratch" if protocol["from_scratch"] else str(result["checkpoint"]["method"]),
            "arch": str(protocol["arch"]),
            "data": str(result["data"]["train"]["name"]),
            "labels": None if protocol["labels"] is None else str(protocol["labels"]),
            **({"value": float(result["value"])} if "value" in result else {"top1": float(result["top1"])}),
            "interval": tuple(map(float, result["interval"])),
            "n_train": int(result["n_train"]),
            "n_test": int(result["n_test"]),
        }
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise CheckpointError(f"{path}: result.json was not written by `sslctl finetune`", HINT) from e


def _pretraining_row(path: Path) -> dict[str, Any]:
    if not (path / "spec.yaml").is_file():
        return {"task": "finetune"}  # which has no result yet
    spec = read_spec_file(path / "spec.yaml")
    sections = {key: value if isinstance(value, dict) else {} for key, value in spec.items()}
    fields = {"method": ("method", "name"), "arch": ("backbone", "arch"), "data": ("data", "path")}
    values = {key: sections.get(section, {}).get(name) for key, (section, name) in fields.items()}
    return {"task": "pretrain"} | {key: None if value is None else str(value) for key, value in values.items()}
