"""A run's directory: identity, lock, metrics stream, retention."""

import json
import os
import subprocess
import sys

import pytest

from sslctl.errors import MachineError, SpecError
from sslctl.runs.directory import Run, default_directory, differences, fresh_directory, identity
from sslctl.spec.parsing import check_spec


def spec(**run):
    return check_spec({"data": {"path": "photos/cats"}, "method": {"name": "swav", "queue": 0}, "run": run})


def test_the_directory_is_a_function_of_what_matters():
    assert default_directory(spec(seed=1)) == default_directory(spec(seed=1, max_time=5.0, keep=7, log_every=3))
    assert default_directory(spec(seed=1)) != default_directory(spec(seed=2))
    assert default_directory(spec()).name.startswith("swav-resnet50-cats-")


def test_incidental_keys_are_not_part_of_the_identity():
    data = identity(spec(keep=5))
    assert "keep" not in data["run"]
    assert "workers" not in data["data"]
    assert data["run"]["seed"] == 0


def test_fresh_takes_the_first_free_name(tmp_path):
    assert fresh_directory(tmp_path / "a") == tmp_path / "a"
    (tmp_path / "a").mkdir()
    (tmp_path / "a-2").mkdir()
    assert fresh_directory(tmp_path / "a") == tmp_path / "a-3"


def test_another_spec_in_the_same_directory_is_refused_with_the_differences(tmp_path):
    with Run(tmp_path / "r") as run:
        run.claim(spec(seed=1))
        run.claim(spec(seed=1, keep=9))  # incidental
        with pytest.raises(SpecError, match="run.seed: 1 there, 2 asked for"):
            run.claim(spec(seed=2))


def test_differences_see_method_parameters():
    a = check_spec({"data": {"path": "x"}, "method": {"name": "swav", "queue": 0}})
    b = check_spec({"data": {"path": "x"}, "method": {"name": "swav", "queue": 8}})
    assert differences(a.dump(), b.dump(), identity(b)) == [("method.queue", 0, 8)]


def test_a_second_process_is_refused_and_told_who_holds_the_run(tmp_path):
    code = "import sys, pathlib, sslctl.runs.directory as d; d.Run(pathlib.Path(sys.argv[1])).__enter__()"
    with Run(tmp_path / "r"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "r")], capture_output=True, text=True, check=False
        )
    assert done.returncode != 0
    assert "MachineError" in done.stderr
    assert f"pid {os.getpid()}" in done.stderr
    with Run(tmp_path / "r"):
        pass  # free again


def test_a_directory_that_cannot_be_made_is_an_error_with_a_hint(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="run directory"), Run(tmp_path / "file" / "r"):
        pass


def test_metrics_of_steps_to_come_again_are_dropped_and_a_torn_line_with_them(tmp_path):
    with Run(tmp_path / "r") as run:
        run.start_metrics(0)
        for step in (1, 2, 3):
            run.log({"step": step, "loss": 1.0 / step})
    with (tmp_path / "r" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    with Run(tmp_path / "r") as run:
        run.start_metrics(2)
        run.log({"step": 3, "loss": 0.5})
    lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[-1]["loss"] == 0.5


def test_last_is_the_newest_and_old_ones_go(tmp_path):
    with Run(tmp_path / "r") as run:
        for step in (5, 10, 15):
            path = run.numbered(step)
            path.write_bytes(str(step).encode())
            run.keep_last(path, keep=2)
    assert run.last.read_bytes() == b"15"
    assert sorted(p.name for p in run.checkpoints.glob("step-*")) == [
        "step-000000010.safetensors",
        "step-000000015.safetensors",
    ]


def test_an_unreadable_image_is_listed_once_also_after_a_restart(tmp_path):
    for _ in range(2):
        with Run(tmp_path / "r") as run:
            run.record_bad(3, "cat\n.jpg", "0 bytes")
            run.record_bad(3, "cat\n.jpg", "0 bytes")
    assert [json.loads(line)["index"] for line in run.bad_file.read_text().splitlines()] == [3]
