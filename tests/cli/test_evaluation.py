"""knn and linear-eval from the command line: on a run alone, JSON, gates, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .calling import COLOURS, call, result, tiny_resnet, tiny_vit, write_images


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "flags", list(COLOURS), 20)


@pytest.fixture(scope="module")
def resnet(images: Path) -> Path:
    return tiny_resnet(images, images.parent / "resnet")


@pytest.fixture(scope="module")
def vit(images: Path) -> Path:
    return tiny_vit(images, images.parent / "vit")


def test_knn_of_a_run_needs_nothing_but_the_run(resnet: Path) -> None:
    found = result("knn", resnet, "--k", "3,50", "--temperature", "0.07,1", "--baselines")
    assert (found["n_train"], found["n_test"], found["classes"]) == (54, 6, 3)
    assert 0 <= found["top1"] <= 1 and found["top5"] == 1
    low, high = found["interval"]
    assert low < found["top1"] + 1e-9 and found["top1"] < high + 1e-9
    assert found["protocol"] == {
        "name": "knn", "k": 3, "temperature": 0.07, "arch": "resnet18", "size": 32, "precision": "float32"
    }  # fmt: skip
    assert [(g["k"], g["temperature"]) for g in found["grid"]] == [(3, 0.07), (3, 1.0), (50, 0.07), (50, 1.0)]
    assert found["grid"][0]["top1"] == found["top1"]
    assert found["baselines"]["pixels"]["top1"] == 1.0  # colours are plain to see in the pixels
    assert found["checkpoint"] == {
        "path": str(resnet / "checkpoints" / Path(found["checkpoint"]["path"]).name), "method": "simclr", "step": 2
    }  # fmt: skip
    assert len(found["data"]["train"]["fingerprint"]) == 64


def test_a_checkpoint_file_serves_as_well_as_its_run(resnet: Path, images: Path) -> None:
    (file,) = (resnet / "checkpoints").glob("step-*.safetensors")
    by_file, by_run = result("knn", file), result("knn", resnet)
    assert by_file["top1"] == by_run["top1"] and by_file["data"] == by_run["data"]


def test_linear_eval_learns_the_colours_and_says_how(resnet: Path, images: Path, tmp_path: Path) -> None:
    test = write_images(tmp_path / "test", list(COLOURS), 5)
    found = result("linear-eval", resnet, "--data", images, "--val-data", test)
    assert (found["n_train"], found["n_test"]) == (60, 15)
    assert found["top1"] > 0.8
    assert found["protocol"]["l2"] in [float(key) for key in found["protocol"]["held_out_top1"]]
    text = call("linear-eval", resnet, "--data", images, "--val-data", test).stdout
    assert text.startswith("linear-eval: top-1 ") and "60 training and 15 test images of 3 classes" in text


def test_a_missed_gate_prints_the_result_and_exits_with_7(resnet: Path) -> None:
    done = call("knn", resnet, "--fail-under", "1", "--json", "--k", "54")
    found = json.loads(done.stdout)
    if found["top1"] < 1:
        assert done.exit_code == 7 and found["gate"] == {"fail_under": 1.0, "passed": False}
        assert "under --fail-under 1" in done.stderr
    assert result("knn", resnet, "--fail-under", "0")["gate"]["passed"]


def test_images_without_labels_or_with_other_classes_are_refused(resnet: Path, images: Path, tmp_path: Path) -> None:
    done = call("knn", resnet, "--data", images / "red")
    assert done.exit_code == 3 and "no labels" in done.stderr
    other = write_images(tmp_path / "other", ["blue", "green"], 3)
    (other / "green").rename(other / "verde")
    done = call("knn", resnet, "--data", images, "--val-data", other)
    assert done.exit_code == 3 and "verde" in done.stderr


def test_usage_errors_name_the_value(resnet: Path, vit: Path, tmp_path: Path) -> None:
    for words, message in [
        (("knn", resnet, "--k", "5,x"), "--k '5,x'"),
        (("knn", resnet, "--temperature", "0"), "--temperature '0'"),
        (("knn", resnet, "--device", "cubs"), "--device 'cubs'"),
        (("knn", resnet, "--precision", "fp23"), "--precision 'fp23'"),
        (("attn-map", resnet, "x.png"), "does not exist"),
        (("attn-map", vit, tmp_path / "nowhere"), "does not exist"),
    ]:
        done = call(*words)
        assert done.exit_code in (2, 3) and message in done.stderr, done.stderr
        assert done.stdout == ""
    assert call("knn", tmp_path).exit_code == 4


def test_features_are_computed_once_or_again_with_no_cache(resnet: Path, images: Path) -> None:
    words = ("knn", resnet, "--data", images, "--seed", "7")
    by_split = (*words, "--split")
    first, again, anew = call(*by_split), call(*by_split), call(*by_split, "--no-cache")
    assert first.stdout == again.stdout == anew.stdout
    assert "computed before" in again.stderr and "computed before" not in first.stderr + anew.stderr
    assert call("linear-eval", *words[1:]).stderr.count("computed before") == 2
    files = list((resnet / "features").glob("*.safetensors"))
    for path in files:
        path.write_bytes(path.read_bytes()[:-3])
    damaged = call(*by_split)
    assert damaged.stdout == first.stdout and "computed before" not in damaged.stderr
    assert len(list((resnet / "features").iterdir())) == len(files)


def test_few_labels_are_drawn_several_times(resnet: Path, images: Path, tmp_path: Path) -> None:
    found = result("knn", resnet, "--data", images, "--labels", "2-per-class", "--draws", "3", "--k", "1")
    assert found["n_train"] == 6 and found["n_test"] == 6
    draws = found["protocol"]["draws_top1"]
    assert len(draws) == 3 and found["top1"] == pytest.approx(sum(draws) / 3)
    assert found["protocol"]["labels"] == "2-per-class"
    text = call("knn", resnet, "--data", images, "--labels", "2-per-class", "--k", "1").stdout
    assert "mean of 5 draws of 2-per-class" in text
    (tmp_path / "list.txt").write_text("red/1.png\nred/2.png\nblue/1.png\nblue/2.png\ngreen/3.png\ngreen/4.png\n")
    found = result("knn", resnet, "--data", images, "--labels", tmp_path / "list.txt", "--k", "1")
    assert found["protocol"]["draws"] == 1 and 3 <= found["n_train"] <= 6
    done = call("knn", resnet, "--labels", "3")
    assert done.exit_code == 2 and "--labels 3-per-class" in done.stderr
