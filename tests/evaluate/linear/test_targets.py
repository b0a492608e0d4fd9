"""Linear functions of frozen features for targets that are no classes, against scikit-learn's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import average_precision_score, r2_score
from sklearn.preprocessing import StandardScaler

from sslctl.errors import DataError
from sslctl.evaluate.features.extract import FeatureSet
from sslctl.evaluate.linear.targets import linear_targets
from sslctl.evaluate.targets import Table

N, D = 200, 6


def made(kind: str) -> tuple[FeatureSet, FeatureSet, Table]:
    """Features and a table of three columns that depend on them, in training and test images."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, D)) * np.array([1, 10, 0.1, 1, 1, 1]) + 3
    y = (x / x.std(0)) @ rng.normal(size=(D, 3)) + rng.normal(size=(N, 3)) * 0.5
    y = 50 * y + 7 if kind == "regression" else (y > y.mean(0)).astype(float)
    table = Table("values.csv", [str(i) for i in range(N)], ["a", "b", "c"], torch.tensor(y, dtype=torch.float32))
    assert table.kind == kind
    rows = torch.arange(N)
    whole = FeatureSet(torch.tensor(x, dtype=torch.float32), rows, rows, [], [], "photos", "f" * 64)
    return whole.take(rows[:150]), whole.take(rows[150:]), table


def test_ridge_regression_is_scikit_learns() -> None:
    train, test, table = made("regression")
    score = linear_targets(train, test, table, l2s=[0.01])
    scale = StandardScaler().fit(train.x)
    y = table.values.numpy()
    model = Ridge(alpha=0.01 * len(train.x)).fit(scale.transform(train.x), y[:150])
    expected = r2_score(y[150:], model.predict(scale.transform(test.x)))
    assert score.value == pytest.approx(expected, abs=1e-4) and 0.8 < score.value < 1
    assert score.protocol["solver"] == "ridge" and score.protocol["l2"] == 0.01


def test_labels_are_independent_logistic_regressions() -> None:
    train, test, table = made("multilabel")
    score = linear_targets(train, test, table, l2s=[0.01])
    scale = StandardScaler().fit(train.x)
    y = table.values.numpy()
    found = []
    for column in range(3):
        model = LogisticRegression(C=1 / (0.01 * len(train.x)), max_iter=1000).fit(
            scale.transform(train.x), y[:150, column]
        )
        found.append(average_precision_score(y[150:, column], model.decision_function(scale.transform(test.x))))
    assert score.value == pytest.approx(np.mean(found), abs=2e-3) and score.value > 0.9
    assert score.protocol["solver"] == "lbfgs"


def test_the_penalty_is_chosen_on_training_images_that_were_held_out() -> None:
    train, test, table = made("regression")
    score = linear_targets(train, test, table, l2s=[1e-4, 1e-2, 100.0])
    losses = score.protocol["held_out_loss"]
    assert score.protocol["l2"] == float(min(losses, key=losses.get)) < 100 and score.protocol["held_out"] == 30
    other = replace(test, x=test.x * 0)
    assert linear_targets(train, other, table, l2s=[1e-4, 1e-2, 100.0]).protocol == score.protocol


def test_too_few_images_are_refused() -> None:
    train, test, table = made("regression")
    with pytest.raises(DataError, match="4 images with targets are too few"):
        linear_targets(train.take(torch.arange(4)), test, table)
