"""Two processes share an evaluation: the same features and files as one, written and said once; the probe, and best."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[3]
STEP = 7


def evaluate(run: Path, pictures: Path, folder: Path, rank: int) -> dict[str, Any]:
    """What one of the processes does and finds; files go into ``folder``."""
    from typer.testing import CliRunner

    from sslctl.cli.main import app
    from sslctl.data import open_source
    from sslctl.engine.background_writer import BackgroundWriter
    from sslctl.engine.loop import keep_best
    from sslctl.errors import DivergedError
    from sslctl.evaluate.features.extract import extract
    from sslctl.evaluate.online_probe import Probe
    from sslctl.runs.directory import Run
    from sslctl.runs.encoder import load_encoder
    from sslctl.runtime import distributed
    from sslctl.schedule import Step
    from sslctl.views.evaluation import EvalTransform
    from tests.training import small_spec, training

    said = {}
    common = [str(run), "--data", str(pictures), "--workers", "0", "--batch-size", "4", "--json"]
    for name, words in {"embed": ["--out", str(folder / "x.npy")], "knn": [], "again": ["--k", "5"]}.items():
        done = CliRunner().invoke(app, ["knn" if name == "again" else name, *common, *words])
        assert done.exit_code == 0, done.output
        said[name] = done.stdout
    source = open_source(str(pictures))
    encoder = load_encoder(run).backbone
    taken = extract(encoder, source, EvalTransform(32, (0.5,) * 3, (0.2,) * 3), batch_size=4)
    t = training(small_spec(pictures, run={"probe_data": str(pictures)}, data={"bad_limit": 1}))
    assert isinstance(t.probe, Probe)
    step = Step(STEP - 1, 9, 3)
    scores = replace(t.probe, batch_size=4)(step)
    with Run(folder / f"run-{rank}") as own, closing(BackgroundWriter()) as saver:
        keep_best(t, own, {"step": STEP, **scores}, saver)
    with torch.no_grad():
        next(t.method.encoder().parameters()).fill_(float("nan"))
    with pytest.raises(DivergedError):  # by all of them, not one alone while others wait
        t.probe(step)
    x = taken.x.tolist(), taken.index.tolist(), taken.unreadable
    return {"said": said, "taken": x, "scores": scores, "world": distributed.world_size()}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """17 pictures: in batches of four, two processes have three and two. One whole batch cannot be read."""
    from ...training import picture_folder

    folder = picture_folder(tmp_path_factory.mktemp("pictures"), n=17)
    for i in (8, 10, 12, 14):  # positions 4 to 7 of the set
        next((folder / "class0").glob(f"{i:03d}.*")).write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sslctl.engine.loop import train
    from sslctl.runs.directory import Run

    from ...training import StopAfter, silent, small_spec, training

    path = tmp_path_factory.mktemp("runs") / "simclr"
    with Run(path) as opened:
        train(training(small_spec(pictures, run={"steps": 2}, data={"bad_limit": 1})), opened, StopAfter(99), silent)
    return path


def free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def test_two_processes_find_what_one_finds(run: Path, pictures: Path, tmp_path: Path) -> None:
    two = tmp_path / "two"
    two.mkdir()
    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    env = os.environ | loopback | {"PYTHONPATH": str(ROOT), "WORLD_SIZE": "2"}
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    words = [sys.executable, __file__, str(run), str(pictures), str(two)]
    running = [
        subprocess.Popen(
            words, env=env | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        for process in running:
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors
    finally:
        for process in running:  # one that waits for the other
            process.kill()
    first, second = (json.loads((two / f"{rank}.json").read_text()) for rank in range(2))
    assert (first["world"], second["world"]) == (2, 2)
    assert set(second["said"].values()) == {""}  # one JSON object for both

    (run / "features").rename(tmp_path / "features of two")
    one = tmp_path / "one"
    whole = json.loads(json.dumps(evaluate(run, pictures, one, 0)))
    assert first["taken"] == second["taken"] == whole["taken"]
    assert len(whole["taken"][0]) == 13 and whole["taken"][2][0][0] == 4
    assert first["scores"] == second["scores"] == whole["scores"]
    for name in ("x.npy", "x.jsonl"):
        assert (two / name).read_bytes() == (one / name).read_bytes()
    assert np.load(one / "x.npy").shape[0] == 13
    said = [
        {k: json.loads(found["said"][k].replace("/two/", "/one/")) for k in found["said"]} for found in (first, whole)
    ]
    assert said[0] == said[1]

    cached = [
        sorted(path.name for path in folder.iterdir()) for folder in (tmp_path / "features of two", run / "features")
    ]
    assert cached[0] == cached[1] != []
    best = [
        (folder / f"run-{rank}" / "checkpoints" / "best.safetensors") for folder, rank in ((two, 0), (two, 1), (one, 0))
    ]
    assert [path.exists() for path in best] == [True, False, True]


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_path, pictures_path, folder = map(Path, sys.argv[1:])
    own_rank = int(os.environ["RANK"])
    found = evaluate(run_path, pictures_path, folder, own_rank)
    (folder / f"{own_rank}.json").write_text(json.dumps(found))
