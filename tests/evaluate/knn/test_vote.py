"""kNN: DINO's votes and top-1/top-5 exactly, any number of classes and images, bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score, balanced_accuracy_score, confusion_matrix
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from sslctl.errors import DataError, SpecError
from sslctl.evaluate.detail import confusion, mean_per_class, per_class
from sslctl.evaluate.features.extract import FeatureSet
from sslctl.evaluate.knn.search import neighbours
from sslctl.evaluate.knn.vote import knn, vote

GOLDEN = Path(__file__).parents[2] / "golden"
KS = [1, 3, 10, 20, 100, 200]


def features(x: Tensor, labels: Tensor, classes: int | None = None) -> FeatureSet:
    names = [f"c{i}" for i in range(classes or int(labels.max()) + 1)]
    return FeatureSet(x, labels, torch.arange(len(x)), names, [], "set", "0")


def clustered(n: int, classes: int, seed: int, noise: float = 1.0) -> FeatureSet:
    centres = torch.randn(classes, 12, generator=torch.Generator().manual_seed(99))
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n,), generator=g)
    return features(centres[labels] + noise * torch.randn(n, 12, generator=g), labels, classes)


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(GOLDEN / "dino_knn.safetensors")


@pytest.mark.parametrize("k", KS)
def test_votes_are_those_of_the_reference(golden: dict[str, Tensor], k: int) -> None:
    train, test = golden["train_features"], golden["test_features"]
    parts = list(neighbours(train, test, max(KS)))
    similarity, index = (torch.cat(part) for part in zip(*parts, strict=True))
    votes = vote(similarity[:, :k], golden["train_labels"][index[:, :k]], 10, 0.07)
    scaled = votes * (similarity[:, :1] / 0.07).exp()  # ours are relative to the nearest neighbour
    torch.testing.assert_close(scaled, golden[f"k{k}.votes_reference"], rtol=1e-9, atol=0)


@pytest.mark.parametrize("budget", [1, 1 << 15, 1 << 26])
def test_top1_and_top5_are_those_of_dino_for_all_k_in_one_pass(golden: dict[str, Tensor], budget: int) -> None:
    train = features(golden["train_features"], golden["train_labels"])
    test = features(golden["test_features"], golden["test_labels"])
    for k, score in zip(KS, knn(train, test, KS, [0.07], budget), strict=True):
        top1, top5 = golden[f"k{k}.top1_top5_percent"].tolist()
        assert (100 * score.top1, 100 * score.top5) == pytest.approx((top1, top5), abs=1e-9)
        assert score.protocol == {"name": "knn", "k": k, "temperature": 0.07}
        assert (score.n_train, score.n_test, score.classes) == (400, 250, 10)


def test_agrees_with_scikit_learn() -> None:
    train, test = clustered(300, 7, 0, 2.0), clustered(90, 7, 1, 2.0)
    (score,) = knn(train, test, [15], [0.5])
    model = KNeighborsClassifier(15, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.5))
    expected = model.fit(train.x, train.labels).score(test.x, test.labels)
    assert 0.3 < score.top1 < 0.99
    assert score.top1 == pytest.approx(expected)


def test_temperatures_and_ks_are_a_grid_in_the_order_given() -> None:
    train, test = clustered(200, 5, 0, 3.0), clustered(50, 5, 1, 3.0)
    scores = knn(train, test, [20, 5], [1.0, 0.01])
    assert [(s.protocol["k"], s.protocol["temperature"]) for s in scores] == [
        (20, 1.0),
        (20, 0.01),
        (5, 1.0),
        (5, 0.01),
    ]
    nearest = knn(train, test, [1], [1.0])[0]
    assert scores[1].top1 == pytest.approx(nearest.top1, abs=0.05)  # a low temperature listens to the nearest alone
    assert len({s.top1 for s in scores}) > 1


def test_a_tiny_temperature_does_not_overflow() -> None:
    train, test = clustered(200, 5, 0), clustered(50, 5, 1)
    assert knn(train, test, [10], [1e-6])[0].top1 == knn(train, test, [1], [0.07])[0].top1


def test_few_images_few_classes_and_a_k_above_them() -> None:
    train, test = clustered(6, 2, 3, 0.1), clustered(3, 2, 4, 0.1)
    score = knn(train, test, [200], [0.07])[0]
    assert score.protocol["k"] == 6
    assert "k 200 is more than the 6 training images" in score.notes[0]
    assert score.top5 == 1.0  # two classes: both are among the first five


def test_leave_one_out_tests_each_image_on_all_others() -> None:
    whole = clustered(120, 6, 0, 2.0)
    whole.labels[:] = torch.where(whole.labels == 5, 4, whole.labels)
    whole.labels[7] = 5  # the only one of its class
    k10, k500 = knn(whole, whole, [10, 500], [0.1])
    others = [whole.take(torch.arange(120)[torch.arange(120) != i]) for i in range(120)]
    expected = [knn(rest, whole.take(torch.tensor([i])), [10], [0.1])[0].top1 for i, rest in enumerate(others)]
    assert 0.3 < k10.top1 < 0.95
    assert k10.top1 == pytest.approx(sum(expected) / 120) and expected[7] == 0.0
    assert (k10.n_train, k10.n_test, k10.protocol["leave_one_out"], k500.protocol["k"]) == (119, 120, True, 119)
    assert "1 classes have a single image" in k10.notes[1]


@pytest.mark.parametrize("alone", [False, True])
def test_average_precision_is_that_of_scikit_learn_and_recall_that_of_a_loop(alone: bool) -> None:
    train = clustered(300, 7, 0, 2.0)
    test = train if alone else clustered(80, 7, 1, 2.0)
    train.x[5], train.labels[5] = train.x[6], train.labels[6]  # equal similarities
    for budget in (1, 1 << 26):
        found = knn(train, test, [3], [0.07], budget, retrieval=True)[0].retrieval
        assert found is not None
        similarity = torch.nn.functional.normalize(test.x, dim=1) @ torch.nn.functional.normalize(train.x, dim=1).T
        precision, recall = [], []
        for i, row in enumerate(similarity):
            keep = torch.arange(300) != (i if alone else -1)
            same = (train.labels == test.labels[i])[keep]
            precision.append(average_precision_score(same, row[keep]))
            recall.append([bool(same[row[keep].topk(k)[1]].any()) for k in (1, 5, 10)])
        assert found["map"] == pytest.approx(np.mean(precision), abs=1e-6)
        assert list(found["recall"].values()) == pytest.approx(np.mean(recall, 0))
        assert found["map_interval"][0] < found["map"] < found["map_interval"][1]
        assert found["queries"] == len(test.x)


def test_retrieval_leaves_out_images_that_have_nothing_to_find() -> None:
    train, test = clustered(50, 4, 0), clustered(30, 4, 1)
    train = train.take((train.labels != 2).nonzero().flatten())
    s = knn(train, test, [3], [0.07], retrieval=True)[0]
    absent = int((test.labels == 2).sum())
    assert s.retrieval is not None and s.retrieval["queries"] == 30 - absent and absent > 0
    assert f"leaves out {absent} images" in s.notes[-1]


def test_classes_and_confusions_are_those_of_scikit_learn() -> None:
    train, test = clustered(300, 7, 0, 2.0), clustered(90, 7, 1, 2.0)
    s = knn(train, test, [15], [0.5])[0]
    assert s.predictions is not None
    counts = confusion(s)
    assert counts.tolist() == confusion_matrix(s.predictions.label, s.predictions.predicted).tolist()
    rows = per_class(s, test.classes)
    assert sum(row["images"] * row["top1"] for row in rows) / 90 == pytest.approx(s.top1)
    assert mean_per_class(rows) == pytest.approx(balanced_accuracy_score(s.predictions.label, s.predictions.predicted))
    assert all(row["interval"][0] <= row["top1"] <= row["interval"][1] for row in rows)


def test_what_is_no_experiment_is_refused() -> None:
    train, test = clustered(20, 3, 0), clustered(10, 3, 1)
    with pytest.raises(SpecError, match="must be positive"):
        knn(train, test, [0], [0.07])
    with pytest.raises(SpecError, match="must be positive"):
        knn(train, test, [1], [0.0])
    with pytest.raises(DataError, match="no labels"):
        knn(train, features(test.x, torch.full((10,), -1), 3), [1], [0.07])
    with pytest.raises(DataError, match="not the same"):
        knn(train, features(test.x, test.labels, 4), [1], [0.07])
    with pytest.raises(DataError, match="12 and 5 numbers"):
        knn(train, features(test.x[:, :5], test.labels, 3), [1], [0.07])
    with pytest.raises(DataError, match="single class"):
        knn(features(train.x, train.labels * 0, 1), features(test.x, test.labels * 0, 1), [1], [0.07])
