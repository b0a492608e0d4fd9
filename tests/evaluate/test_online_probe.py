"""The online probe: it disturbs no bit of the run, finds what knn finds, and keeps the best checkpoint."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from sslctl.cli.main import app
from sslctl.engine import loop as engine
from sslctl.engine.background_writer import BackgroundWriter
from sslctl.engine.loop import train
from sslctl.errors import DataError, Stopped
from sslctl.evaluate.online_probe import Probe, open_probe
from sslctl.runs import checkpoint
from sslctl.runs.directory import Run

from ..training import StopAfter, picture_folder, silent, small_spec, training


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("labelled"), n=33, labels=3)


def probed(pictures: Path, labelled: Path, method: str = "simclr", **run: Any) -> dict[str, Any]:
    return small_spec(pictures, method, run={"probe_data": str(labelled), "probe_every": 2, **run})


def go(user: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    with Run(path) as run:
        train(training(user), run, StopAfter(99), silent)
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read(path / "checkpoints" / "last.safetensors")[1]


def without_clock(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    clock = ("images_per_second", "data_wait", "augment", "memory_gib", "probe_seconds")
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


@pytest.mark.parametrize("method", ["simclr", "dino"])  # batch norm in the encoder; a teacher and stochastic depth
def test_a_run_with_a_probe_ends_in_the_bits_of_one_without(
    method: str, pictures: Path, labelled: Path, tmp_path: Path
) -> None:
    plain = go(small_spec(pictures, method), tmp_path / "plain")
    seen = go(probed(pictures, labelled, method), tmp_path / "probed")
    a, b = tensors(tmp_path / "plain"), tensors(tmp_path / "probed")
    assert a.keys() == b.keys()
    assert not [name for name in a if not torch.equal(a[name], b[name])]
    assert [line["step"] for line in seen if "probe_knn" in line] == [2, 4, 6]
    rest = [{k: v for k, v in line.items() if not k.startswith("probe_")} for line in without_clock(seen)]
    assert rest == without_clock(plain)


def test_the_comparison_would_notice_a_probe_that_moves_statistics(pictures: Path, tmp_path: Path) -> None:
    go(small_spec(pictures), tmp_path / "plain")
    t = training(small_spec(pictures))

    def careless(step: object) -> dict[str, float]:
        with torch.no_grad():
            t.method.encoder()(torch.randn(4, 3, 32, 32))
        return {"probe_knn": 0.0}

    with Run(tmp_path / "probed") as run:
        train(replace(t, probe=careless, probe_every=2), run, StopAfter(99), silent)
    a, b = tensors(tmp_path / "plain"), tensors(tmp_path / "probed")
    assert [name for name in a if not torch.equal(a[name], b[name])]


def test_a_probe_between_metric_lines_has_its_own_line(pictures: Path, labelled: Path, tmp_path: Path) -> None:
    lines = go(probed(pictures, labelled, probe_every=4, log_every=3), tmp_path / "r")
    assert [(line["step"], "loss" in line, "probe_knn" in line) for line in lines] == [
        (3, True, False),
        (4, False, True),
        (6, True, True),
    ]
    for line in lines[1:]:
        assert 0 <= line["probe_knn"] <= 1 and 0 <= line["probe_linear"] <= 1 and line["probe_seconds"] > 0


def test_the_last_probe_is_what_knn_says_of_the_checkpoint(pictures: Path, labelled: Path, tmp_path: Path) -> None:
    line = go(probed(pictures, labelled), tmp_path / "r")[-1]
    last = tmp_path / "r" / "checkpoints" / "last.safetensors"
    words = ["knn", str(last), "--data", str(labelled), "--split", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["top1"] == line["probe_knn"]


def scripted(scores: list[float]) -> Any:
    left = iter(scores)
    return lambda step: {"probe_knn": next(left)}


def test_best_is_the_earliest_checkpoint_with_the_highest_score(pictures: Path, tmp_path: Path) -> None:
    t = replace(training(small_spec(pictures)), probe=scripted([0.2, 0.5, 0.4, 0.5, 0.1, 0.3]), probe_every=1)
    with Run(tmp_path / "r") as run:
        train(t, run, StopAfter(99), silent)
    best = checkpoint.read_meta(run.best)
    assert best.step == 2 and best.probe["probe_knn"] == 0.5
    go(small_spec(pictures, run={"keep": 9}), tmp_path / "plain")
    numbered = tmp_path / "plain" / "checkpoints" / "step-000000002.safetensors"
    assert checkpoint.read(numbered)[0].sha256 == best.sha256


def test_a_run_resumed_from_its_best_checkpoint_ends_in_the_same_bits(
    pictures: Path, labelled: Path, tmp_path: Path
) -> None:
    user = probed(pictures, labelled, probe_every=3, checkpoint_every=99)
    whole = go(user, tmp_path / "whole")
    stop = StopAfter(5)
    with Run(tmp_path / "parts") as run, pytest.raises(Stopped):
        train(training(user), run, stop, stop.report)
    for path in run.checkpoints.glob("*.safetensors"):  # killed after the probe, before the next checkpoint
        if path != run.best:
            path.unlink()
    heard: list[dict[str, Any]] = []
    t = training(user, weights_seed=7)
    assert isinstance(t.probe, Probe)
    with Run(tmp_path / "parts") as run:
        train(replace(t, probe=replace(t.probe, encoder=t.method.encoder())), run, StopAfter(99), heard.append)
    assert heard[0]["resumed"] == 3
    a, b = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    assert not [name for name in a if not torch.equal(a[name], b[name])]
    lines = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert without_clock(lines) == without_clock(whole)


def test_a_damaged_best_is_written_anew_when_its_step_comes_again(pictures: Path, tmp_path: Path) -> None:
    t = replace(training(small_spec(pictures)), probe=scripted([0.9, 0.9]))
    with Run(tmp_path / "r") as run, closing(BackgroundWriter()) as saver:
        engine.keep_best(t, run, {"step": 5, "probe_knn": 0.9}, saver)
        engine.keep_best(t, run, {"step": 5, "probe_knn": 0.7}, saver)
        saver.wait()
        assert checkpoint.read_meta(run.best).probe["probe_knn"] == 0.7
        run.best.write_bytes(b"nothing")
        engine.keep_best(t, run, {"step": 6, "probe_knn": 0.1}, saver)
        saver.wait()
        assert checkpoint.read_meta(run.best).step == 6


def test_images_are_bounded_seeded_and_labelled(labelled: Path) -> None:
    train_part, test_part = open_probe(str(labelled), 7, seed=0)
    assert (len(train_part), len(test_part)) == (7, 3)
    names = [train_part.item_name(i) for i in range(7)]
    assert names == [open_probe(str(labelled), 7, seed=0)[0].item_name(i) for i in range(7)]
    assert names != [open_probe(str(labelled), 7, seed=1)[0].item_name(i) for i in range(7)]
    with pytest.raises(DataError, match="no labels"):
        open_probe(str(labelled / "class0"), 7, seed=0)


def test_the_command_line_says_what_the_probe_found(pictures: Path, labelled: Path, tmp_path: Path) -> None:
    import yaml

    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(small_spec(pictures)))
    words = ["pretrain", "--spec", tmp_path / "spec.yaml", "--probe-data", labelled, "--probe-every", 3, "--json"]
    done = CliRunner().invoke(app, [str(word) for word in [*words, "--out", tmp_path / "r"]])
    assert done.exit_code == 0, done.output
    body = json.loads(done.stdout)
    assert body["probe"].keys() == {"probe_knn", "probe_linear", "probe_seconds"}
    assert Path(body["best"]).is_file()
    assert "probe at step 3: knn" in done.stderr and "probe at step 6: knn" in done.stderr
    refused = CliRunner().invoke(app, [str(w) for w in [*words[:3], "--probe-data", labelled / "class0"]])
    assert refused.exit_code == 3 and "no labels" in refused.stderr
