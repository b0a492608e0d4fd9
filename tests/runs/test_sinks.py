"""Sinks: TensorBoard's files hold every line once over several sessions; a sink that fails stops nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from sslctl.cli.main import app
from sslctl.runs.sinks import Sinks, require

from ..training import picture_folder, small_spec

LINES = [{"step": s, "epoch": s / 2, "loss": 1 / s, "health": "learning", "odd": True} for s in range(1, 10)]


def scalars(folder: Path, tag: str = "loss") -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(e.step, e.value) for e in events.Scalars(tag)]


def never(message: str) -> None:
    raise AssertionError(message)


def test_a_killed_and_resumed_run_has_each_point_once_in_tensorboard(tmp_path: Path) -> None:
    first = Sinks(["tensorboard"], tmp_path, {"seed": 0}, never)
    first.begin([])
    for line in LINES[:5]:
        first.log(line)
    del first  # killed: nobody closes it, and the newest checkpoint is that of step 3
    second = Sinks(["tensorboard"], tmp_path, {"seed": 0}, never)
    second.begin(LINES[:3])
    for line in LINES[3:]:
        second.log(line)
    second.close()
    assert [step for step, _ in scalars(tmp_path)] == list(range(1, 10))
    assert [value for _, value in scalars(tmp_path)] == pytest.approx([line["loss"] for line in LINES])
    with pytest.raises(KeyError):
        scalars(tmp_path, "health")


def test_a_sink_that_joins_late_gets_what_went_before(tmp_path: Path) -> None:
    sinks = Sinks(["tensorboard"], tmp_path, {}, never)
    sinks.begin(LINES[:7])
    sinks.close()
    assert [step for step, _ in scalars(tmp_path)] == list(range(1, 8))


class Fake:
    """A service with the interface of W&B and trackio, which keeps what it is told."""

    def __init__(self, break_at: int = 99) -> None:
        self.inits: list[dict[str, Any]] = []
        self.points: list[int] = []
        self.break_at, self.finished = break_at, 0
        self.api = SimpleNamespace(api_key=None)

    def Settings(self, **_: Any) -> None: ...

    def init(self, **given: Any) -> Fake:
        sys.stdout.write("a banner")
        self.inits.append(given)
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        if step >= self.break_at:
            raise OSError("the network is down")
        self.points.append(step)

    def finish(self) -> None:
        self.finished += 1


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_sessions_go_on_in_one_run_of_the_service(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fake = Fake()
    monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for known, new in ((0, LINES[:5]), (3, LINES[3:])):
        sinks = Sinks([name], tmp_path / "run", {"seed": 0}, never)
        sinks.begin(LINES[:known])
        for line in new:
            sinks.log(line)
        sinks.close()
    assert fake.points == list(range(1, 10)) and fake.finished == 2
    one, two = fake.inits
    assert one == two and one["resume"] == "allow" and one["config"] == {"seed": 0}
    assert one["mode"] == "offline" if name == "wandb" else one["embed"] is False
    assert capfd.readouterr().out == ""  # stdout is the command's result and nothing else


def test_a_failing_sink_is_warned_of_once_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio", Fake(break_at=3))
    warned: list[str] = []
    sinks = Sinks(["trackio", "tensorboard"], tmp_path, {}, warned.append)
    sinks.begin([])
    for line in LINES:
        sinks.log(line)
    sinks.close()
    assert len(warned) == 1 and "trackio: OSError: the network is down" in warned[0]
    assert len(scalars(tmp_path)) == 9


def test_a_missing_library_is_said_before_anything_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sslctl.runs.sinks.find_spec", lambda name: None if name != "tensorboard" else object())
    require(["tensorboard"])
    words = ["--data", "demo", "--method", "simclr", "--recipe", "small", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, ["pretrain", *words, "--log-to", "tensorboard,wandb,trackio"])
    assert done.exit_code == 5, done.stderr
    assert "pip install 'sslctl[wandb,trackio]'" in done.stderr and not (tmp_path / "run").exists()
    wrong = CliRunner().invoke(app, ["pretrain", *words, "--log-to", "tensorbord"])
    assert wrong.exit_code == 2 and "run.log_to" in wrong.stderr and "tensorboard" in wrong.stderr


def test_a_run_logs_to_tensorboard_over_a_stop(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(small_spec(picture_folder(tmp_path / "pictures"))))
    words = ["pretrain", "--spec", str(spec), "--out", str(tmp_path / "run"), "--log-to", "tensorboard"]
    assert CliRunner().invoke(app, [*words, "--max-time", "0.00001"]).exit_code == 75
    assert [step for step, _ in scalars(tmp_path / "run")] == [1]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr
    assert [step for step, _ in scalars(tmp_path / "run", "rank")] == [1, 2, 3, 4, 5, 6]
