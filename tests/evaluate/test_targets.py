"""Targets from a CSV: read, matched, told by scikit-learn's solutions and metrics; from the command line; refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score, r2_score
from sklearn.preprocessing import StandardScaler

from sslctl.errors import DataError
from sslctl.evaluate.features.extract import FeatureSet
from sslctl.evaluate.linear.targets import linear_targets
from sslctl.evaluate.targets import Table, read_table, score_targets

from ..cli.calling import call, result, tiny_resnet


def features(x: torch.Tensor, rows: torch.Tensor) -> FeatureSet:
    return FeatureSet(x, rows, torch.arange(len(x)), [], [], "set", "0")


def made(kind: str) -> tuple[FeatureSet, FeatureSet, Table]:
    g = torch.Generator().manual_seed(3)
    x = torch.randn(500, 12, generator=g) * torch.logspace(-1, 1, 12)
    y = x @ torch.randn(12, 3, generator=g) / 10 + 0.5 * torch.randn(500, 3, generator=g)
    values = (y > 0.3).float() if kind == "multilabel" else 7 * y + 100
    table = Table("t.csv", [str(i) for i in range(500)], ["a", "b", "c"], values)
    order = torch.randperm(500, generator=g)
    return features(x[order[:400]], order[:400]), features(x[order[400:]], order[400:]), table


def test_numbers_are_told_as_by_ridge_regression() -> None:
    train, test, table = made("regression")
    score = linear_targets(train, test, table)
    assert table.kind == "regression" and score.metric == "R2"
    scaler, y, yv = StandardScaler().fit(train.x), table.values[train.labels], table.values[test.labels]
    target = StandardScaler().fit(y)
    model = Ridge(alpha=score.protocol["l2"] * 400).fit(scaler.transform(train.x), target.transform(y))
    told = target.inverse_transform(model.predict(scaler.transform(test.x)))
    assert score.value == pytest.approx(r2_score(yv, told), abs=1e-4)
    assert [c["mae"] for c in score.columns] == pytest.approx(np.abs(told - yv.numpy()).mean(0), rel=1e-3)
    assert score.interval[0] < score.value < score.interval[1] < 1
    assert score.interval[1] - score.interval[0] < 0.3


def test_labels_are_scored_by_average_precision_with_its_interval() -> None:
    train, test, table = made("multilabel")
    score = linear_targets(train, test, table)
    assert table.kind == "multilabel" and score.metric == "mAP" and score.value > 0.7
    told, right = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), table.values[:200]
    found = score_targets(told, right, table, 1, {})
    each = [average_precision_score(right[:, j], told[:, j]) for j in range(3)]
    assert [c["ap"] for c in found.columns] == pytest.approx(each) and found.value == pytest.approx(np.mean(each))
    rng = np.random.default_rng(1)
    again = []
    for _ in range(150):
        rows = rng.integers(200, size=200)
        again.append(np.mean([average_precision_score(right[rows, j], told[rows, j]) for j in range(3)]))
    assert found.interval == pytest.approx(np.percentile(again, (2.5, 97.5)), abs=0.03)


def test_the_penalty_is_chosen_within_the_training_set() -> None:
    for kind in ("multilabel", "regression"):
        train, test, table = made(kind)
        said = linear_targets(train, test, table).protocol
        assert said["l2"] == float(min(said["held_out_loss"], key=said["held_out_loss"].get))
        shuffled = features(test.x, test.labels.flip(0))
        assert linear_targets(train, shuffled, table).protocol == said


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain colours; a table of how red they are and whether they are dark or bluish."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "all").mkdir()
    rng = np.random.default_rng(0)
    numbers, labels = ["file,red,green"], ["file,dark,bluish"]
    for i, (r, g, b) in enumerate(rng.integers(0, 256, (80, 3)).tolist()):
        noise = rng.normal(0, 10, (32, 32, 3)) + (r, g, b)
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / "all" / f"{i}.png")
        numbers.append(f"{i}.png,{r},{g}")
        labels.append(f"all/{i}.png,{int(r + g + b < 380)},{int(b > r)}")
    (folder / "numbers.csv").write_text("\n".join(numbers))
    (folder / "labels.csv").write_text("\n".join([*labels[:-3], "nowhere.png,1,0"]))
    return folder


@pytest.fixture(scope="module")
def encoder(photos: Path) -> Path:
    return tiny_resnet(photos / "all", photos / "run")


def test_linear_eval_reads_targets_off(encoder: Path, photos: Path) -> None:
    found = result("linear-eval", encoder, "--targets", photos / "numbers.csv")
    assert (found["metric"], found["n_train"], found["n_test"]) == ("R2", 72, 8)
    assert found["value"] > 0.5 and [c["name"] for c in found["columns"]] == ["red", "green"]
    done = call("linear-eval", encoder, "--data", photos / "all", "--targets", photos / "labels.csv", "--json")
    found = json.loads(done.stdout)
    assert (found["metric"], found["n_train"] + found["n_test"]) == ("mAP", 77)
    assert found["value"] > 0.7 and "have no row; left out" in done.stderr
    missed = call("linear-eval", encoder, "--targets", photos / "numbers.csv", "--fail-under", "1")
    assert missed.exit_code == 7 and missed.stdout.startswith("linear-eval: R2 0.")


@pytest.mark.parametrize("name", ["numbers", "labels"])
def test_finetune_learns_targets_and_compare_shows_them(name: str, encoder: Path, photos: Path, tmp_path: Path) -> None:
    words = ("finetune", encoder, "--targets", photos / f"{name}.csv", "--workers", 0, "--precision", "fp32")
    found = result(*words, "--epochs", 20, "--lr", 0.03, "--batch-size", 24, "--out", tmp_path / "tuned")
    assert found["metric"] == {"numbers": "R2", "labels": "mAP"}[name] and found["value"] > 0.2
    assert found["protocol"]["targets"] == {"numbers": "regression", "labels": "multilabel"}[name]
    lines = [json.loads(line) for line in (tmp_path / "tuned" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["value"] == found["value"] and lines[-1]["loss"] < lines[0]["loss"]
    assert result("compare", tmp_path / "tuned", "--out", tmp_path / "c.png")["runs"][0]["value"] == found["value"]
    assert call(*words, "--smoothing", "0.1", "--out", tmp_path / "no").exit_code == 2


def test_what_is_no_table_is_refused(encoder: Path, photos: Path, tmp_path: Path) -> None:
    for text, message in [
        ("file,a\n1.png,x", "line 2: not 1 numbers"),
        ("file,a\n1.png,nan", "line 2: not 1 numbers"),
        ("file,a\n1.png,1\n1.png,0", "two rows"),
        ("file,a", "no header"),
        ("file,a\nz.png,1\ny.png,0", "0 of its 2 rows are images"),
    ]:
        (tmp_path / "t.csv").write_text(text)
        done = call("linear-eval", encoder, "--data", photos / "all", "--targets", tmp_path / "t.csv")
        assert done.exit_code == 3 and message in done.stderr, done.output
    done = call("linear-eval", encoder, "--targets", photos / "numbers.csv", "--labels", "0.1", "--confusion")
    assert done.exit_code == 2 and "--labels --confusion" in done.stderr
    with pytest.raises(DataError, match="cannot be read"):
        read_table(str(tmp_path / "none.csv"))
