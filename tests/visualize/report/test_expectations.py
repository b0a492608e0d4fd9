"""What is normal: chance levels are those of the losses themselves, and verdicts say what the health figures say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sslctl.methods.resolve import resolve
from sslctl.visualize.report.expectations import READERS, read_curve, sort_keys, trend
from sslctl.visualize.report.history import Point, read_history


def run(path: Path, lines: list[dict[str, Any]], method: str = "swav") -> Any:
    path.mkdir()
    spec = {"data": {"path": "x"}, "method": {"name": method}}
    (path / "spec.yaml").write_text(resolve(spec).to_yaml())
    rows = [
        {"step": i, "epoch": i / 10, "health": "learning · rank 9/99 · std 0.5/√D"} | line
        for i, line in enumerate(lines)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_history(path)


def test_verdicts_are_those_of_the_figures(tmp_path: Path) -> None:
    healthy = run(
        tmp_path / "a", [{"std": 0.9, "rank": 40.0, "data_wait": 0.01, "target_entropy": 0.4, "loss": 4.0}] * 10
    )
    sick = run(
        tmp_path / "b", [{"std": 0.04, "rank": 1.2, "data_wait": 0.6, "target_entropy": 0.995, "loss": 8.0}] * 10
    )
    for key in ("std", "rank", "data_wait", "target_entropy"):
        assert (read_curve(key, healthy).verdict, read_curve(key, sick).verdict) == ("good", "bad")
    assert (
        "40 of at most 99" in read_curve("rank", healthy).now and "more --workers" in read_curve("data_wait", sick).now
    )
    assert "50% below chance (ln K = 8.006)" in read_curve("loss", healthy).now  # 3000 prototypes
    weak = run(tmp_path / "c", [{"std": 0.2, "rank": 5.0, "own": 1.0}] * 10, "moco-v2")
    assert read_curve("std", weak).verdict == read_curve("rank", weak).verdict == "watch"
    assert sort_keys({"own", "rank", "loss", "std"}) == ["loss", "std", "rank", "own"]
    assert read_curve("own", weak).title == "own"


def test_an_old_queue_of_a_fast_teacher_is_told(tmp_path: Path) -> None:
    lines = [{"queue_age": float(i * 100)} for i in range(8)]
    slow = read_curve("queue_age", run(tmp_path / "a", lines, "moco-v2"))
    assert slow.verdict == "good" and "keeps 50% of itself" in slow.now  # 0.999 ** 700
    (tmp_path / "a" / "spec.yaml").write_text(
        (tmp_path / "a" / "spec.yaml").read_text().replace("base: 0.999", "base: 0.9")
    )
    assert read_curve("queue_age", read_history(tmp_path / "a")).verdict == "watch"


@pytest.mark.parametrize(
    ("values", "word"), [(range(50), "rising"), (range(50, 0, -1), "falling"), ([1, 9] * 30, "level")]
)
def test_a_trend_is_of_the_end_of_the_run(values: Any, word: str) -> None:
    assert trend([Point(i, i, float(v)) for i, v in enumerate(values)]) == word


def test_every_reader_survives_every_curve(tmp_path: Path) -> None:
    history = run(tmp_path / "a", [dict.fromkeys(READERS, 0.0)])
    for key in READERS:
        assert read_curve(key, history).normal and read_curve(key, history).title
