"""Pretraining in Python: the spec's words, callbacks, plans; the same run as on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sslctl
from sslctl.runs.checkpoint import read_meta

from ..cli.calling import call

SMALL: dict[str, Any] = {
    "method": "simclr",
    "arch": "resnet18",
    "multi_crop": "2x32",
    "steps": 4,
    "batch_size": 8,
    "workers": 0,
    "seed": 1,
    "set": {"backbone.args": {"channels": [4, 8, 8, 8], "layers": [1, 1, 1, 1]}, "run.threads": 1, "run.log_every": 1},
}


def test_it_is_the_run_of_the_command_line_and_tells_every_line(colours: Path, tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []
    run = sslctl.pretrain(data=colours, out=tmp_path / "a", callback=lines.append, **SMALL)
    assert (run.run, run.steps) == (str(tmp_path / "a"), 4) and run.health
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert {line["total"] for line in lines} == {4} and lines[-1]["loss"] == run.loss
    assert (tmp_path / "a" / "report.html").is_file()
    spec = tmp_path / "a" / "spec.yaml"
    assert call("pretrain", "--spec", spec, "--out", tmp_path / "b").exit_code == 0
    a, b = (read_meta(tmp_path / name / "checkpoints" / "last.safetensors").sha256 for name in "ab")
    assert a == b
    assert sslctl.pretrain(spec=spec, out=tmp_path / "a").loss == run.loss  # finished: reported again
    with pytest.raises(sslctl.SpecError, match="run.seed: 1 there, 2 asked for"):
        sslctl.pretrain(spec=spec, out=tmp_path / "a", seed=2)


def test_a_callback_that_raises_ends_the_training_with_its_error(colours: Path, tmp_path: Path) -> None:
    def stop(line: dict[str, Any]) -> None:
        if line.get("step") == 2:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        sslctl.pretrain(data=colours, out=tmp_path / "run", callback=stop, **SMALL)
    assert sslctl.pretrain(data=colours, out=tmp_path / "run", **SMALL).steps == 4


def test_a_plan_and_a_preview_of_the_same_words(colours: Path, tmp_path: Path) -> None:
    plan = sslctl.plan(data=colours, **SMALL)
    assert (plan.images, plan.steps, plan.steps_per_epoch) == (27, 4, 3)  # three are kept for evaluation
    assert plan.spec["backbone"]["args"]["channels"] == [4, 8, 8, 8] and plan.warnings
    assert sslctl.plan(spec=plan.spec).spec == plan.spec
    assert sslctl.preview(tmp_path / "views.png", data=colours, **SMALL).views == 2
    assert (tmp_path / "views.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "runs").exists()


def test_every_wrong_word_is_named() -> None:
    with pytest.raises(sslctl.SpecError) as error:
        sslctl.plan(data="demo", method="swaw", set={"optim.lrr": 1}, precision="fp31")
    assert all(word in error.value.message for word in ("swav", "did you mean 'lr'", "fp31"))
    with pytest.raises(sslctl.SpecError, match="metod: no such option of plan — did you mean 'method'"):
        sslctl.plan(data="demo", metod="swav")  # type: ignore[call-arg]
