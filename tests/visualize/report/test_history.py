"""What a run's directory tells, also one that is half written: curves, sessions, how it ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sslctl.errors import CheckpointError
from sslctl.visualize.report.history import MAX_POINTS, Point, read_history, short_names, thin


def run(path: Path, lines: list[dict[str, Any]], sessions: list[dict[str, Any]] = (), spec: object = None) -> Path:  # type: ignore[assignment]
    path.mkdir(exist_ok=True)
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "sessions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in sessions))
    if spec is not None:
        (path / "spec.yaml").write_text(yaml.safe_dump(spec))
    return path


LINES = [{"step": s, "epoch": s / 2, "loss": 1 / s, "health": "learning", "rank_of": 9} for s in (1, 2, 3)]


def test_every_number_becomes_a_curve(tmp_path: Path) -> None:
    lines = [*LINES, {"step": 4, "epoch": 2.0, "loss": float("inf"), "probe_knn": 0.5, "flag": True}]
    history = read_history(run(tmp_path / "a", lines))
    assert history.curves == {
        "loss": [Point(1, 0.5, 1.0), Point(2, 1.0, 0.5), Point(3, 1.5, 1 / 3)],
        "probe_knn": [Point(4, 2.0, 0.5)],
    }
    assert history.latest("health") == "learning" and history.latest("nothing", "else") == "else"


def test_the_newest_session_and_how_it_ended(tmp_path: Path) -> None:
    sessions = [{"event": "start", "host": "a"}, {"event": "end", "state": "stopped"}, {"event": "start", "host": "b"}]
    killed = read_history(run(tmp_path, LINES, sessions))
    assert killed.start["host"] == "b" and killed.end == {}
    ended = read_history(run(tmp_path, LINES, [*sessions, {"event": "end", "state": "done"}]))
    assert ended.end["state"] == "done" and read_history(run(tmp_path, LINES)).start == {}


def test_a_spec_that_cannot_be_read_is_none_and_what_it_holds_is_kept(tmp_path: Path) -> None:
    good = {"data": {"path": "x"}, "method": {"name": "swav"}}
    assert read_history(run(tmp_path, LINES, spec=good)).spec is not None
    odd = read_history(run(tmp_path, LINES, spec=good | {"weather": {"sun": 1}}))
    assert odd.spec is None and odd.spec_yaml["weather"] == {"sun": 1}
    (tmp_path / "spec.yaml").unlink()
    gone = read_history(tmp_path)
    assert gone.spec is None and gone.spec_yaml == {}


def test_unreadable_images_are_counted(tmp_path: Path) -> None:
    (run(tmp_path, LINES) / "bad_images.jsonl").write_text('{"index": 1}\n{"index": 2}\n{"ind')
    assert read_history(tmp_path).unreadable == 2


def test_a_folder_without_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no metrics\.jsonl"):
        read_history(tmp_path)
    with pytest.raises(CheckpointError, match="no line yet"):
        read_history(run(tmp_path, [{"step": 1}, {"epoch": 1.0}]))


def test_long_curves_keep_their_ends_and_extremes() -> None:
    curve = [Point(i, i / 10, float(i % 7)) for i in range(10_000)]
    curve[1234] = Point(1234, 123.4, 99.0)
    curve[4321] = Point(4321, 432.1, -99.0)
    few = thin(curve)
    assert (
        len(few) <= MAX_POINTS + 2
        and few == sorted(few)
        and {curve[0], curve[-1], curve[1234], curve[4321]} <= set(few)
    )
    assert thin(curve[:MAX_POINTS]) == curve[:MAX_POINTS]


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b", tmp_path / "other" / "a"]
    assert short_names(paths) == [str(paths[0]), "b", str(paths[2])]
