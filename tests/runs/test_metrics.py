"""metrics.jsonl: read whatever stands in it, written again from a step on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sslctl.runs.metrics import FILE, Metrics, is_number, read_metrics, read_objects


def test_lines_that_are_cut_off_or_foreign_are_passed_over(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []
    lines = [b'{"step": 1}', b"[1]", b"null", b'{"step": "2"}', b'{"loss": 1.0}', b"\xff\xfe", b"[" * 10**5]
    (tmp_path / FILE).write_bytes(b"\n".join([*lines, b'{"step": 3, "loss": 0.5}', b'{"step": 4, "lo']))
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 3]
    assert [line["step"] for line in read_metrics(tmp_path, 2)] == [1]
    assert len(read_objects(tmp_path / FILE)) == 4  # those without a step, too


def test_a_writer_goes_on_from_a_step_and_writes_nothing_before_it_starts(tmp_path: Path) -> None:
    with Metrics(tmp_path) as metrics:
        metrics.append({"step": 0})
        metrics.start()
        for step in (1, 2, 3):
            metrics.append({"step": step, "loss": 1 / step})
    (tmp_path / FILE).write_text((tmp_path / FILE).read_text() + '{"step": 4, "lo')
    with Metrics(tmp_path) as metrics:
        metrics.start(2)
        metrics.append({"step": 3, "loss": 9.0})
        with pytest.raises(ValueError, match="JSON"):
            metrics.append({"step": 4, "loss": float("nan")})
    lines = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 9.0}]


def test_numbers_are_finite_and_not_truth_values() -> None:
    assert [is_number(x) for x in (1, 0.5, True, float("inf"), 10**400, "1", None)] == [True, True, *[False] * 5]
