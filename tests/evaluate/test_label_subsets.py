"""Few labels: stratified, seeded, nested; published lists; draws and their spread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sslctl.data.source import FileSource
from sslctl.errors import DataError, SpecError
from sslctl.evaluate.features.extract import FeatureSet
from sslctl.evaluate.label_subsets import FewLabels, choose, find_listed, over_draws, parse_labels
from sslctl.evaluate.score import Predictions, Score, score

LABELS = torch.tensor([0] * 300 + [1] * 100 + [2] * 4)[torch.randperm(404, generator=torch.Generator().manual_seed(0))]


def test_what_can_be_said(tmp_path: Path) -> None:
    assert parse_labels("0.01").share == 0.01 and parse_labels("1").share == 1
    assert parse_labels("10-per-class").per_class == 10
    (tmp_path / "1percent.txt").write_text("n01_5.JPEG\n\nn02_7.JPEG\n")
    assert parse_labels(str(tmp_path / "1percent.txt")).names == ("n01_5.JPEG", "n02_7.JPEG")
    with pytest.raises(SpecError, match="'10': not a share") as e:
        parse_labels("10")
    assert "--labels 10-per-class" in e.value.hint
    for text in ("0", "-0.1", "nan", "0-per-class", "x-per-class", "1-per-image", "nowhere.txt", ""):
        with pytest.raises(SpecError):
            parse_labels(text)
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match="empty"):
        parse_labels(str(tmp_path / "empty.txt"))


@pytest.mark.parametrize(("text", "expected"), [("0.1", [30, 10, 1]), ("0.01", [3, 1, 1]), ("7-per-class", [7, 7, 4])])
def test_every_class_gets_its_part(text: str, expected: list[int]) -> None:
    rows = choose(parse_labels(text), LABELS, 0, 0)
    assert torch.bincount(LABELS[rows]).tolist() == expected
    assert len(rows.unique()) == len(rows)


def test_draws_are_functions_of_seed_and_number_and_larger_parts_hold_smaller_ones() -> None:
    small, large = parse_labels("0.05"), parse_labels("0.2")
    assert torch.equal(choose(small, LABELS, 3, 1), choose(small, LABELS, 3, 1))
    drawn = {tuple(choose(small, LABELS, seed, draw).tolist()) for seed in range(3) for draw in range(3)}
    assert len(drawn) == 9
    assert set(choose(small, LABELS, 3, 1).tolist()) < set(choose(large, LABELS, 3, 1).tolist())


def test_every_image_is_drawn_as_often_as_any_other_of_its_class() -> None:
    few = FewLabels("", share=0.2)
    count = torch.zeros(404)
    for draw in range(400):
        count[choose(few, LABELS, 0, draw)] += 1
    # 400 draws with probability 0.2: mean 80, deviation 8
    assert 79 < count[LABELS == 0].mean() < 81 and count[LABELS == 0].std() < 10 and count.min() > 45


def listed(lines: str, tmp_path: Path, names: list[str]) -> tuple[list[int], int]:
    (tmp_path / "list.txt").write_text(lines)
    source = FileSource("set", "/data/train", names)
    keep = torch.tensor([i for i in range(len(names)) if i != 1])  # image 1 could not be read
    rows, missing = find_listed(parse_labels(str(tmp_path / "list.txt")), source, keep)
    return keep[rows].tolist(), missing


def test_lists_name_images_by_file_name_or_by_path(tmp_path: Path) -> None:
    names = ["n01/n01_1.JPEG", "n01/n01_2.JPEG", "n01/0.png", "n02/n02_1.JPEG", "n02/0.png"]
    assert listed("n02_1.JPEG\nn01_1.JPEG\n", tmp_path, names) == ([0, 3], 0)
    assert listed("n01/0.png\n./n02/n02_1.JPEG\nn03_9.JPEG\n", tmp_path, names) == ([2, 3], 1)
    assert listed("/data/train/n02/0.png\nn01_2.JPEG\n", tmp_path, names) == ([4], 1)
    with pytest.raises(DataError, match="'0.png' means 2 images"):
        listed("0.png\n", tmp_path, names)
    with pytest.raises(DataError, match="none of its 2 lines is an image of set"):
        listed("1_1.JPEG\n02/n02_1.JPEG\n", tmp_path, names)


def test_scores_are_means_over_draws_with_their_deviation() -> None:
    train = FeatureSet(torch.arange(404.0)[:, None], LABELS, torch.arange(404), ["a", "b", "c"], [], "set", "0")
    seen: list[int] = []

    def evaluate(part: FeatureSet, test: FeatureSet) -> list[Score]:
        assert torch.equal(part.labels, LABELS[part.x[:, 0].long()])
        seen.append(len(part.x))
        right = len(seen)  # of 10
        rank = torch.tensor([0] * right + [7] * (10 - right))
        predictions = Predictions(rank, rank, rank)
        return [score(predictions, len(part.x), 3, {"name": "knn", "k": k}) for k in (1, 2)]

    source = FileSource("set", "/", [str(i) for i in range(404)])
    first, second = over_draws(evaluate, parse_labels("5-per-class"), source, seed=4, draws=3)(train, train)
    assert seen == [14, 14, 14] and (first.n_train, first.n_test) == (14, 10)
    assert first.top1 == pytest.approx(0.2) and first.protocol["draws_top1"] == [0.1, 0.2, 0.3]
    assert first.protocol["spread"] == pytest.approx(np.std([0.1, 0.2, 0.3], ddof=1))
    assert (first.protocol["labels"], first.protocol["draws"], first.protocol["labels_seed"]) == ("5-per-class", 3, 4)
    assert (first.protocol["k"], second.protocol["k"]) == (1, 2)
    assert first.notes == ("1 classes have fewer than 5 images; all of theirs are used",)
