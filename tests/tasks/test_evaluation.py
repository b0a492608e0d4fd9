"""Scores in Python: typed, frozen, equal to those of the command line, with notes and progress for the caller."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

import sslctl
from sslctl.tasks.feedback import Note
from sslctl.tasks.results import ClassScore, TargetsScore

from ..cli.calling import call


def test_a_score_is_the_json_of_the_command_line(colours: Path, run: Path) -> None:
    score = sslctl.knn(run, colours, k=(3, 5), baselines=True, per_class=True, fail_under=0.1)
    words = ("knn", run, "--data", colours, "--k", "3,5", "--baselines", "--per-class", "--fail-under", "0.1")
    assert call(*words, "--json").stdout == score.model_dump_json() + "\n"
    found = json.loads(score.model_dump_json())
    assert (found["schema"], found["sslctl"], found["task"]) == (1, sslctl.__version__, "knn")
    assert ClassScore.model_validate_json(score.model_dump_json()) == score
    assert "classes_absent" not in found and "retrieval" not in found  # what was not asked for is not there
    with pytest.raises(ValidationError, match="frozen"):
        score.top1 = 1.0  # type: ignore[misc]


def test_notes_and_progress_go_to_the_caller_and_nothing_is_printed(
    colours: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes: list[Note] = []
    steps: list[tuple[str, int, int]] = []
    sslctl.linear_eval(
        run,
        colours,
        val_data=colours,
        no_cache=True,
        notes=notes.append,
        progress=lambda label, done, total: steps.append((label, done, total)),
    )
    assert steps == [(f"features of 30 {part} images, resnet18", 30, 30) for part in ("training", "test")]
    assert [note for note in notes if note.level == "note"] == [label for label, _, _ in steps]
    assert any("training set as well" in note for note in notes if note.level == "warning")
    assert capsys.readouterr() == ("", "")


def test_fine_tuning_returns_what_it_writes(colours: Path, run: Path, tmp_path: Path) -> None:
    score = sslctl.finetune(run, colours, epochs=1, batch_size=8, out=tmp_path / "tuned", workers=0, device="cpu")
    assert score.run == str(tmp_path / "tuned")
    assert ClassScore.model_validate_json((tmp_path / "tuned" / "result.json").read_text()) == score
    assert sslctl.knn(score.run, colours, k=3).top1 >= 0
    row = sslctl.compare([run, score.run], out=tmp_path / "c.svg").runs[1]
    assert (row.task, row.top1, row.n_test) == ("finetune", score.top1, score.n_test)
    (tmp_path / "t.csv").write_text("file,warm\n" + "".join(f"red/{i}.png,1\nblue/{i}.png,0\n" for i in range(10)))
    targets = sslctl.linear_eval(run, colours, targets=str(tmp_path / "t.csv"))
    assert isinstance(targets, TargetsScore) and targets.metric == "mAP" and targets.columns[0].name == "warm"


def test_options_are_checked_as_on_the_command_line(colours: Path, run: Path) -> None:
    for options, message in [
        ({"k": "5,x"}, "--k '5,x'"),
        ({"draws": 3}, "nothing is drawn without --labels"),
        ({"labells": 0.1}, "labells: no such option of knn — did you mean 'labels'"),
        ({"batch_size": 0}, "--batch-size 0: outside its limits"),
        ({"fail_under": 1.5}, "--fail-under 1.5: outside its limits"),
        ({"device": "cubs"}, "--device 'cubs'"),
    ]:
        with pytest.raises(sslctl.SpecError, match=message.replace("(", "\\(")):
            sslctl.knn(run, colours, **options)  # type: ignore[arg-type]
    with pytest.raises(sslctl.SpecError, match="not known"):
        sslctl.knn("random:resnet10t")
