"""``sslctl pretrain`` as people and pipelines use it: streams, exit codes, files, errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from sslctl.cli.main import app
from sslctl.runs import checkpoint

from ..training import picture_folder, small_spec


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures"))


def write_spec(folder: Path, images: Path | str, **sections: Any) -> Path:
    file = folder / "spec.yaml"
    file.write_text(yaml.safe_dump(small_spec(images, **sections)))
    return file


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory) -> Path:
    """The directory of a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    result = call("pretrain", "--spec", write_spec(folder, pictures), "--out", folder / "run")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{folder / 'run'}\n"
    return folder / "run"


def test_a_run_leaves_what_the_contract_names(finished):
    assert {"spec.yaml", "metrics.jsonl", "checkpoints"} <= {p.name for p in finished.iterdir()}
    names = {p.name for p in (finished / "checkpoints").iterdir()}
    assert names == {"last.safetensors", "step-000000004.safetensors", "step-000000006.safetensors"}
    line = json.loads((finished / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["step"] == 6
    assert {"epoch", "loss", "lr", "images_per_second", "data_wait", "std", "rank", "health"} <= line.keys()
    assert 0 < line["augment"] < 1
    assert 0.05 < line["memory_gib"] < 100


def test_json_is_one_object_and_a_finished_run_is_reported_again(finished, pictures, tmp_path):
    spec = finished.parent / "spec.yaml"
    result = call("pretrain", "--spec", spec, "--out", finished, "--json")
    assert result.exit_code == 0, result.stderr
    body = json.loads(result.stdout)
    assert body["run"] == str(finished)
    assert body["steps"] == 6
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert body["loss"] == lines[-1]["loss"]
    for key in ("images_per_second", "data_wait", "augment"):
        assert body[key] == median(line[key] for line in lines)
    assert body["memory_gib"] == lines[-1]["memory_gib"]
    assert f"{body['images_per_second']:.0f} images/s" in result.stderr.splitlines()[-1]
    assert Path(body["checkpoint"]).is_file()


def test_the_resolved_spec_repeats_the_run_bit_by_bit(finished, tmp_path):
    result = call("pretrain", "--spec", finished / "spec.yaml", "--out", tmp_path / "again")
    assert result.exit_code == 0, result.stderr
    digests = [checkpoint.read_meta(checkpoint.find(run)).sha256 for run in (finished, tmp_path / "again")]
    assert digests[0] == digests[1]


def test_another_spec_in_the_same_directory_is_refused_and_fresh_makes_a_new_one(finished):
    words = ["pretrain", "--spec", finished.parent / "spec.yaml", "--out", finished, "--seed", "5"]
    refused = call(*words)
    assert refused.exit_code == 2
    assert "run.seed: 0 there, 5 asked for" in refused.stderr
    fresh = call(*words, "--fresh")
    assert fresh.exit_code == 0, fresh.stderr
    assert fresh.stdout.strip() == f"{finished}-2"


def test_resume_insists_on_a_checkpoint(finished, tmp_path):
    result = call("pretrain", "--spec", finished.parent / "spec.yaml", "--out", tmp_path / "new", "--resume")
    assert result.exit_code == 4
    assert "holds no checkpoint" in result.stderr


def test_flags_beat_set_which_beats_the_file(pictures, tmp_path):
    spec = write_spec(tmp_path, pictures, run={"seed": 1, "batch_size": 4})
    words = ["pretrain", "--spec", spec, "--set", "run.seed=2", "--set", "run.batch_size=6", "--seed", "3"]
    result = call(*words, "--epochs", "2", "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    run = json.loads(result.stdout)["spec"]["run"]
    assert (run["seed"], run["batch_size"], run["epochs"], run["steps"]) == (3, 6, 2, None)


def test_dry_run_shows_the_plan_and_writes_nothing(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = write_spec(tmp_path, pictures)
    result = call("pretrain", "--spec", spec, "--dry-run")
    assert result.exit_code == 0, result.stderr
    shown = yaml.safe_load(result.stdout)
    assert shown["views"]["multi_crop"] == "2x32+2x16"
    assert shown["method"]["temperature"] == 0.1
    for word in ("# steps        6", "# parameters", "# memory"):
        assert word in result.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["spec.yaml"]


def test_preview_is_a_sheet_of_the_views(pictures, tmp_path):
    spec = write_spec(tmp_path, pictures)
    result = call("pretrain", "--spec", spec, "--preview", tmp_path / "views.png", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["views"] == 4
    with Image.open(tmp_path / "views.png") as sheet:
        assert sheet.width > 4 * 32
        assert len(sheet.convert("RGB").getcolors(1 << 20) or range(99)) > 50


def test_every_error_of_a_spec_at_once_without_torch(tmp_path):
    words = ["--data", "x", "--method", "swaw", "--precision", "fp31", "--set", "run.epocs=3", "--set", "optim.lr=no"]
    code = "import sys; from sslctl.cli.main import app\ntry: app()\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "pretrain", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    for part in ("swav", "did you mean 'epochs'", "fp31", "optim.lr"):
        assert part in done.stderr
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--method", "swav"], 2, "data"),
        (["--data", "demo"], 2, "method"),
        (["--data", "nowhere/at/all", "--method", "swav"], 3, "nowhere"),
        (["--data", "demo", "--method", "swav", "--multi-crop", "2by160"], 2, "2x160+4x96"),
        (["--data", "demo", "--method", "swav", "--arch", "resnet81"], 2, "did you mean 'resnet18'"),
        (["--data", "demo", "--method", "swav", "--device", "cuda:7"], 5, "cuda:7"),
        (["--data", "demo", "--method", "swav", "--batch-size", "5000"], 3, "4000 images"),
        (["--data", "demo", "--method", "swav", "--spec", "absent.yaml"], 2, "absent.yaml"),
        (["--data", "demo", "--method", "swav", "--epochs", "1", "--steps", "2"], 2, "epochs and steps"),
        (["--data", "demo", "--method", "swav", "--set", "optim.name=adamw"], 2, "missing `--lr`"),
        (["--data", "demo", "--method", "swav", "--set", "nonsense"], 2, "section.key=value"),
        (["--epoch", "3"], 2, "--epochs"),
    ],
)
def test_a_mistake_ends_in_its_code_and_one_clear_message(words, code, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("pretrain", *words)
    assert result.exit_code == code, result.stderr
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) <= 7
    assert not (tmp_path / "runs").exists()


def test_errors_are_one_json_object_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("pretrain", "--data", "nowhere", "--method", "swav", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["error"]["code"] == 3


def test_unreadable_images_are_listed_and_too_many_stop_the_run(tmp_path):
    pictures = picture_folder(tmp_path / "pictures")
    (pictures / "class0" / "broken.jpg").write_bytes(b"<html>no image</html>")
    allowed = write_spec(tmp_path, pictures, data={"bad_limit": 0.2})
    result = call("pretrain", "--spec", allowed, "--out", tmp_path / "a")
    assert result.exit_code == 0, result.stderr
    listed = [json.loads(line) for line in (tmp_path / "a" / "bad_images.jsonl").read_text().splitlines()]
    assert [Path(entry["image"]).name for entry in listed] == ["broken.jpg"]
    refused = call("pretrain", "--spec", write_spec(tmp_path, pictures), "--out", tmp_path / "b")
    assert refused.exit_code == 3
    assert "1 of 19 images" in refused.stderr


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_checkpoint(pictures, tmp_path):
    explode = {"lr": 1000.0, "weight_decay": 1e12, "warmup_epochs": 0}
    run = {"checkpoint_every": 1, "steps": 40}
    spec = write_spec(tmp_path, pictures, optimizer="sgd", optim=explode, run=run)
    result = call("pretrain", "--spec", spec, "--out", tmp_path / "run")
    assert result.exit_code == 6, result.stderr
    assert "Traceback" not in result.stderr
    for path in (tmp_path / "run" / "checkpoints").glob("*.safetensors"):
        checkpoint.read(path)  # whole, and its weights were finite
    assert "diverged after" in (tmp_path / "run" / "report.html").read_text()


def test_max_time_saves_and_stops_with_75(pictures, tmp_path):
    spec = write_spec(tmp_path, pictures)
    stopped = call("pretrain", "--spec", spec, "--out", tmp_path / "run", "--max-time", "0.00001")
    assert stopped.exit_code == 75
    assert "stopped at step 1 of 6" in stopped.stderr
    assert "stopped after 1 of 6 steps" in (tmp_path / "run" / "report.html").read_text()
    assert call("pretrain", "--spec", spec, "--out", tmp_path / "run").exit_code == 0


def test_quiet_says_nothing_but_the_result(pictures, tmp_path):
    result = call("pretrain", "--spec", write_spec(tmp_path, pictures), "--out", tmp_path / "run", "-q")
    assert result.exit_code == 0
    assert result.stderr == ""
