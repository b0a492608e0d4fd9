"""metrics.jsonl: what is written reads back, torn and foreign lines are left out, later steps are dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from sslctl.runs.metrics import FILE, Metrics, is_number, read_metrics, read_objects

from ..disk import files_up_to


def test_lines_read_back_as_they_were_written(tmp_path: Path) -> None:
    lines = [{"step": 1, "loss": 0.5, "health": "läuft"}, {"step": 2, "loss": 1e-12}]
    with Metrics(tmp_path) as metrics:
        metrics.append({"step": 0})  # before the start nothing is written
        metrics.start()
        for line in lines:
            metrics.append(line)
    assert read_metrics(tmp_path) == lines and read_metrics(tmp_path, upto=1) == lines[:1]


def test_steps_that_will_come_again_are_dropped(tmp_path: Path) -> None:
    for start, steps in ((-1, (1, 2, 3)), (2, (3, 4))):
        with Metrics(tmp_path) as metrics:
            metrics.start(start)
            for step in steps:
                metrics.append({"step": step, "session": start})
    assert [(line["step"], line["session"]) for line in read_metrics(tmp_path)] == [(1, -1), (2, -1), (3, 2), (4, 2)]


def test_torn_and_foreign_lines_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / FILE
    file.write_bytes(
        b'{"step": 1}\n[1]\n\n\xff\xfe\n{"step": "2"}\n{"step": true}\n' + b"[" * 100_000 + b'\n{"step": 3, "lo'
    )
    assert read_metrics(tmp_path) == [{"step": 1}]
    assert read_objects(file) == [{"step": 1}, {"step": "2"}, {"step": True}]
    assert read_objects(tmp_path / "gone.jsonl") == [] == read_metrics(tmp_path / "gone")


def test_numbers_that_json_has_no_word_for_are_refused(tmp_path: Path) -> None:
    with Metrics(tmp_path) as metrics, pytest.raises(ValueError, match="JSON"):
        metrics.start()
        metrics.append({"step": 1, "loss": float("nan")})


def test_a_full_disk_does_not_stop_training(tmp_path: Path) -> None:
    with Metrics(tmp_path) as metrics:
        metrics.start()
        metrics.append({"step": 1})
        with files_up_to((tmp_path / FILE).stat().st_size):
            metrics.append({"step": 2, "text": "x" * 10_000})
    assert read_metrics(tmp_path)[0] == {"step": 1}


@pytest.mark.parametrize(
    ("value", "answer"),
    [(1, True), (0.5, True), (True, False), ("1", False), (None, False), (float("inf"), False), (10**400, False)],
)
def test_what_a_number_is(value: object, answer: bool) -> None:
    assert is_number(value) is answer
