"""compare: the table says what the files say, the picture shows every run, odd directories are refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from sslctl.cli.main import app
from sslctl.errors import CheckpointError
from sslctl.visualize.comparison import plot, read_run


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, words)])


def tuned(path: Path, top1: list[float], scratch: bool = False, labels: str | None = None) -> Path:
    path.mkdir(parents=True)
    lines = [{"step": 5 * i, "epoch": float(i), "loss": 1 / i, "top1": v} for i, v in enumerate(top1, 1)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result: dict[str, Any] = {
        "top1": top1[-1],
        "interval": [top1[-1] - 0.1, top1[-1] + 0.1],
        "n_train": 50,
        "n_test": 9,
    }
    result |= {"protocol": {"from_scratch": scratch, "arch": "resnet18", "labels": labels}}
    result |= {"checkpoint": {"method": "swav"}, "data": {"train": {"name": "some/flags"}}}
    (path / "result.json").write_text(json.dumps(result))
    return path


def pretrained(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "spec.yaml").write_text(
        "schema: 1\ndata: {path: photos}\nmethod: {name: dino}\nbackbone: {arch: vit_tiny_patch16_224}\n"
    )
    lines = [
        {"step": 1, "epoch": 0.5, "loss": 5.0, "health": "learning"},
        {"step": 2, "epoch": 1.0, "probe_knn": 0.25, "probe_linear": 0.5},
        {"step": 3, "epoch": 1.5, "loss": 4.0, "health": "collapsed"},
    ]
    cut_off = '{"step": 4, "epo'
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + cut_off)
    return path


def test_rows_and_curves_are_those_of_the_files(tmp_path: Path) -> None:
    run = read_run(pretrained(tmp_path / "a"))
    assert run.row == {
        "run": str(tmp_path / "a"), "steps": 3, "epoch": 1.5, "loss": 4.0, "health": "collapsed", "probe_knn": 0.25,
        "probe_linear": 0.5, "task": "pretrain", "method": "dino", "arch": "vit_tiny_patch16_224", "data": "photos",
    }  # fmt: skip
    assert run.curves == {"loss": [(0.5, 5.0), (1.5, 4.0)], "probe_knn": [(1.0, 0.25)], "probe_linear": [(1.0, 0.5)]}
    tuning = read_run(tuned(tmp_path / "b", [0.3, 0.7], labels="0.1"))
    assert tuning.curves["top1"] == [(1.0, 0.3), (2.0, 0.7)] and tuning.row["labels"] == "0.1"


def test_the_table_has_a_line_a_run_and_no_empty_column(tmp_path: Path) -> None:
    paths = [tuned(tmp_path / "scratch", [0.5], scratch=True), tuned(tmp_path / "tuned", [0.75])]
    out = ("--out", tmp_path / "c.png")
    lines = call(*paths, *out).stdout.splitlines()
    assert lines[0].split() == ["run", "task", "method", "arch", "data", "epoch", "loss", "top1"]
    assert lines[1].split()[:3] == ["scratch", "finetune", "scratch"] and "50.0 % (40.0 to 60.0)" in lines[1]
    assert lines[2].split()[:5] == ["tuned", "finetune", "swav", "resnet18", "flags"] and "75.0 %" in lines[2]
    mixed = call(*paths, pretrained(tmp_path / "other" / "tuned"), *out).stdout
    assert str(tmp_path / "other" / "tuned") in mixed and "25.0 %" in mixed  # two of one name: by their paths


def test_every_run_is_in_the_picture(tmp_path: Path) -> None:
    runs = [tuned(tmp_path / f"r{i}$x_", [0.1 * i, 0.2 * i]) for i in range(1, 4)]
    runs_read = [read_run(path) for path in runs]
    svg = plot(runs_read, "svg").decode()
    for colour in ("#1f77b4", "#ff7f0e", "#2ca02c"):
        assert svg.count(colour) >= 4  # a curve and its line in the legend, in two panels
    assert "#d62728" not in svg
    with (
        Image.open(io.BytesIO(plot(runs_read, "png"))) as both,
        Image.open(io.BytesIO(plot(runs_read[:1], "png"))) as one,
    ):
        assert both.size == one.size and both.convert("RGB").tobytes() != one.convert("RGB").tobytes()


def test_the_command_prints_one_object_and_writes_the_picture(tmp_path: Path) -> None:
    a, b = tuned(tmp_path / "a", [0.2, 0.4]), pretrained(tmp_path / "b")
    done = call(a, b, a, "--out", tmp_path / "pictures" / "c.svg", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [row["run"] for row in found["runs"]] == [str(a), str(b)]
    assert (tmp_path / "pictures" / "c.svg").read_text().startswith("<?xml")
    assert call(a, "--out", tmp_path / "c.png").stdout.startswith("run  task")


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "absent"):
        with pytest.raises(CheckpointError, match=r"has no metrics\.jsonl"):
            read_run(tmp_path / name)
    odd = tuned(tmp_path / "odd", [0.5])
    (odd / "result.json").write_text('{"top1": "high"}')
    done = call(odd, "--out", tmp_path / "c.png")
    assert done.exit_code == 4 and "result.json" in done.stderr and not (tmp_path / "c.png").exists()
    assert call(odd, "--out", tmp_path / "c.jpg").exit_code == 2
