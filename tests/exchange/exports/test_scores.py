"""Scores of an exported encoder: of its run up to its step, and of files that are about it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sslctl.errors import SpecError
from sslctl.exchange.exports.scores import Row, of_files, of_run
from tests.exchange.exports.encoders import encoder


def test_scores_are_the_newest_up_to_the_checkpoint(tmp_path: Path) -> None:
    ours = replace(encoder("resnet", 32), path=tmp_path / "checkpoints" / "last.safetensors")
    assert of_run(ours) == []
    lines = [{"step": 5, "probe_knn": 0.1, "probe_linear": 0.2}, {"step": 700, "probe_knn": 0.3}]
    lines += [{"step": 778, "probe_knn": 1}]  # of later weights
    torn = '{"step": 701, "probe_'
    (tmp_path / "metrics.jsonl").write_text("\n".join([*map(json.dumps, lines), torn]))
    assert [(row.data, row.top1) for row in of_run(ours)] == [("photos", 0.3), ("photos", 0.2)]
    assert of_run(encoder("resnet", 32)) == []  # a file of its own, beside whatever


def score(**changes: object) -> dict[str, object]:
    """What ``sslctl knn --json`` printed, as far as a card needs it."""
    return {
        "task": "knn",
        "checkpoint": {"method": "swav", "step": 777},
        "protocol": {"name": "knn", "k": 20, "grid": [1, 2]},
        "n_train": 100,
        "n_test": 50,
        "classes": 4,
        "top1": 0.5,
        "interval": [0.4, 0.6],
        "data": {"test": {"name": "/home/somebody/flowers"}},
        **changes,
    }


def saved(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_a_file_of_a_score_becomes_a_row_without_paths(tmp_path: Path) -> None:
    (row,) = of_files(encoder("resnet", 32), [saved(tmp_path / "knn.json", score())])
    assert row == Row("knn: k 20, 100 training and 50 test images of 4 classes", "flowers", 0.5, (0.4, 0.6))
    assert str(row) == "50.0 % (40.0 to 60.0)" and str(Row("p", "d", 0.123)) == "12.3 %"


def test_a_score_of_another_checkpoint_is_refused(tmp_path: Path) -> None:
    other = score(checkpoint={"method": "dino", "step": 777})
    with pytest.raises(SpecError, match="a score of dino at step 777, not of swav at 777"):
        of_files(encoder("resnet", 32), [saved(tmp_path / "a.json", other)])


@pytest.mark.parametrize("content", [{}, [], "text", {**score(), "interval": 3}, {**score(), "protocol": []}])
def test_what_is_no_score_is_refused(content: object, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"a\.json: not a score of sslctl"):
        of_files(encoder("resnet", 32), [saved(tmp_path / "a.json", content)])
    with pytest.raises(SpecError, match=r"gone\.json"):
        of_files(encoder("resnet", 32), [tmp_path / "gone.json"])
