"""Average precision is scikit-learn's and recall is counted by hand; images without a partner are left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from sslctl.evaluate.knn.retrieval import RECALL, Retrieval

from ..judged import scored


def found(train: list[int], test: list[int], similarity: torch.Tensor) -> dict[str, object]:
    retrieval = Retrieval(torch.tensor(train), torch.tensor(test), alone=False)
    order = similarity.argsort(1, descending=True)[:, : max(RECALL)]
    for start in (0, 2):  # in parts, as a pass gives them
        part = slice(start, start + 2 if start == 0 else None)
        retrieval.first(torch.tensor(train)[order[part]], torch.tensor(test)[part])
        retrieval.look(start, similarity[part].clone())
    score = retrieval.beside(scored([0] * len(test), test))
    assert score.retrieval is not None
    return {**score.retrieval, "notes": score.notes}


def test_it_is_scikit_learns_average_precision() -> None:
    rng = np.random.default_rng(0)
    train, test = rng.integers(0, 3, 40).tolist(), rng.integers(0, 3, 7).tolist()
    similarity = torch.tensor(rng.normal(size=(7, 40)).round(1))  # with ties
    expected = [
        average_precision_score(np.array(train) == c, row) for c, row in zip(test, similarity.numpy(), strict=True)
    ]
    answer = found(train, test, similarity)
    assert answer["map"] == pytest.approx(np.mean(expected), rel=1e-12) and answer["queries"] == 7
    low, high = answer["map_interval"]  # type: ignore[misc]
    assert low < answer["map"] < high


def test_recall_is_the_share_of_images_with_one_of_their_class_among_the_nearest() -> None:
    train = [0, 1, 1, 1, 1, 1, 0]
    similarity = torch.tensor([[7.0, 6, 5, 4, 3, 2, 1], [1.0, 7, 6, 5, 4, 3, 2], [6.0, 7, 5, 4, 3, 2, 1]])
    assert found(train, [0, 0, 0], similarity)["recall"] == {
        "1": pytest.approx(1 / 3),
        "5": pytest.approx(2 / 3),
        "10": 1.0,
    }


def test_images_of_whose_class_there_is_no_other_are_left_out() -> None:
    answer = found([0, 0, 1], [0, 2, 1], torch.tensor([[3.0, 2, 1]] * 3))
    assert answer["queries"] == 2 and answer["map"] == pytest.approx((1 + 1 / 3) / 2)
    assert "leaves out 1 images" in answer["notes"][0]  # type: ignore[index]
    assert found([0, 0], [1, 1, 1], torch.ones(3, 2)) | {"notes": ()} == {"queries": 0, "notes": ()}
