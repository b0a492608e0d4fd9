"""What must be known of a score: overlap, absent classes, leave-one-out, the best of a grid, details, seeds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ..cli.calling import call, result, tiny_resnet, write_images


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "flags", ["blue", "green", "red"], 12)


@pytest.fixture(scope="module")
def encoder(images: Path) -> Path:
    return tiny_resnet(images, images.parent / "run")


def test_a_single_set_is_scored_leave_one_out_in_all_detail(encoder: Path, images: Path) -> None:
    words = ("knn", encoder, "--data", images, "--per-class", "--confusion", "--retrieval", "--k", "5")
    found = result(*words)
    assert (found["n_train"], found["n_test"], found["protocol"]["leave_one_out"]) == (35, 36, True)
    counts = found["confusion"]["counts"]
    assert [sum(row) for row in counts] == [12, 12, 12]
    assert sum(counts[i][i] for i in range(3)) / 36 == pytest.approx(found["top1"])
    assert [row["class"] for row in found["per_class"]] == found["confusion"]["classes"] == ["blue", "green", "red"]
    assert found["mean_per_class"] == pytest.approx(found["top1"])
    assert 0 < found["retrieval"]["map"] <= 1 and found["retrieval"]["queries"] == 36
    text = call(*words).stdout
    for words_of in ("leave one out", "recall@5", "mean of the classes", "class (row) taken for (column)", "  3 red"):
        assert words_of in text
    split = result("knn", encoder, "--data", images, "--split")
    assert split["n_train"] + split["n_test"] == 36 and "leave_one_out" not in split["protocol"]


def test_images_in_both_sets_are_counted_named_and_left_out(encoder: Path, images: Path, tmp_path: Path) -> None:
    test = write_images(tmp_path / "test", ["blue", "green", "red"], 4)
    assert result("knn", encoder, "--data", images, "--val-data", test)["overlap"]["images"] == 0
    shutil.copy(images / "red" / "3.png", test / "blue" / "other-name.png")  # a red one among the blue
    Image.open(images / "green" / "1.png").save(test / "green" / "again.bmp")  # other bytes, the same pixels
    done = call("knn", encoder, "--data", images, "--val-data", test, "--json", "--k", "1")
    found = json.loads(done.stdout)
    assert (found["overlap"]["images"], found["overlap"]["by"], found["n_test"]) == (2, "pixels", 14)
    assert found["overlap"]["examples"][0] == [str(test / "blue" / "other-name.png"), str(images / "red" / "3.png")]
    right = found["top1"] * 14
    assert found["overlap"]["top1_without"] == pytest.approx((right - 1) / 12)  # one copy was told right, one wrong
    assert "2 of 14 test images are in the training set as well" in done.stderr and "without them" in done.stderr
    assert any("training set as well" in line for line in found["notes"])


def test_a_class_without_test_images_is_a_warning_and_a_foreign_one_an_error(
    encoder: Path, images: Path, tmp_path: Path
) -> None:
    test = write_images(tmp_path / "test", ["blue", "red"], 4)
    done = call("linear-eval", encoder, "--data", images, "--val-data", test, "--json")
    found = json.loads(done.stdout)
    assert found["classes_absent"] == {"train": [], "test": ["green"]} and found["classes"] == 3
    assert "1 of 3 classes have no test image: green" in done.stderr
    (test / "red").rename(test / "rouge")
    assert call("linear-eval", encoder, "--data", images, "--val-data", test).exit_code == 3


def test_the_best_of_a_grid_is_called_chosen_on_the_test_images(encoder: Path, images: Path) -> None:
    words = ("knn", encoder, "--data", images, "--k", "30,1", "--temperature", "1")
    found = result(*words)
    best = max(found["grid"], key=lambda one: float(one["top1"]))
    assert found["grid_best"] == {k: v for k, v in best.items() if k != "top5"} | {"chosen_on": "test images"}
    assert found["top1"] == found["grid"][0]["top1"]
    assert "best of these, chosen on the test images" in call(*words).stdout
    assert "grid_best" not in result("knn", encoder, "--data", images)


def test_several_seeds_are_averaged_with_their_spread(encoder: Path, images: Path) -> None:
    words = ("linear-eval", encoder, "--data", images, "--val-data", images, "--seed")
    found = result(*words, "5", "--seeds", "3")
    each = [result(*words, seed)["top1"] for seed in (5, 6, 7)]  # other images are held out for the choice
    assert found["protocol"]["seeds_top1"] == each and found["top1"] == pytest.approx(sum(each) / 3)
    assert found["protocol"]["spread"] == pytest.approx(np.std(each, ddof=1))
    assert found["overlap"]["share"] == 1.0
    assert "mean of 3 seeds" in call(*words, "5", "--seeds", "3").stdout


def test_what_cannot_be_asked_together_is_said(encoder: Path, images: Path) -> None:
    for words, message in [
        (("--leave-one-out", "--val-data", images), "--leave-one-out takes one set"),
        (("--retrieval", "--labels", "0.5"), "--retrieval searches the whole training set"),
    ]:
        done = call("knn", encoder, "--data", images, *words)
        assert done.exit_code == 2 and message in done.stderr
