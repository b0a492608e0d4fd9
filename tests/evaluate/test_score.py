"""Scores: intervals, ranks with ties, and what is printed."""

from __future__ import annotations

import json

import pytest
import torch

from sslctl.evaluate.score import Predictions, Score, bootstrap, ranks, score, wilson


def test_wilson_interval_is_that_of_the_tables() -> None:
    # Newcombe (1998), table I, method 3
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1 / 29, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)
    assert wilson(1.0, 10) == pytest.approx((0.7225, 1.0), abs=5e-5)


def test_rank_counts_the_classes_before_the_right_one_and_ties_go_by_number() -> None:
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 0.0]])
    assert ranks(scores, torch.tensor([2, 1, 0, 2])).tolist() == [1, 1, 0, 2]


def test_scores_that_are_not_numbers_are_wrong() -> None:
    scores = torch.tensor([[float("nan")] * 3, [0.0, float("nan"), 1.0], [0.0, 2.0, 1.0]])
    assert ranks(scores, torch.tensor([0, 2, 1])).tolist() == [3, 3, 0]


def test_a_score_says_its_protocol_and_its_uncertainty() -> None:
    predictions = Predictions(torch.tensor([0, 0, 3, 5]), torch.tensor([4, 5, 6, 7]), torch.tensor([4, 5, 0, 0]))
    s = score(predictions, 100, 10, {"name": "knn", "k": 20})
    assert (s.top1, s.top5, s.n_test) == (0.5, 0.75, 4)
    assert score(predictions, 100, 10, {}, first=3).top5 == 0.5
    data = json.loads(json.dumps(s.as_dict()))
    assert data["interval"] == pytest.approx(list(wilson(0.5, 4)))
    assert data["protocol"] == {"name": "knn", "k": 20}
    assert str(s) == "top-1 50.0 % (15.0 to 85.0), top-5 75.0 %"
    assert isinstance(s, Score)


def test_the_interval_of_a_mean_is_about_two_standard_errors() -> None:
    values = torch.rand(2000, generator=torch.Generator().manual_seed(0))
    low, high = bootstrap(values)
    error = 1.96 * float(values.std()) / 2000**0.5
    assert (low, high) == pytest.approx((float(values.mean()) - error, float(values.mean()) + error), abs=0.1 * error)
    assert bootstrap(values) == (low, high) != bootstrap(values, 1)
