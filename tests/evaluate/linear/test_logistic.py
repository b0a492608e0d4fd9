"""Linear evaluation: scikit-learn's solution, a penalty that the test set has no say in, odd sets."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from sslctl.evaluate.features.extract import FeatureSet
from sslctl.evaluate.linear import logistic as module
from sslctl.evaluate.linear.logistic import fit, linear, split


def made(n: int, seed: int, *, noise: float = 1.0, classes: int = 5, width: int = 20) -> tuple[Tensor, Tensor]:
    """Clusters with uneven scales, an offset, and a dimension that never varies."""
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(7)).double()
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n,), generator=g)
    x = centres[labels] + noise * torch.randn(n, width, generator=g).double()
    x = x * torch.logspace(-2, 2, width).double() + 3
    x[:, 4] = 3.0
    return x, labels


def features(x: Tensor, labels: Tensor) -> FeatureSet:
    return FeatureSet(x.float(), labels, torch.arange(len(x)), [f"c{i}" for i in range(5)], [], "set", "0")


@pytest.mark.parametrize("l2", [1e-1, 1e-3])
@pytest.mark.parametrize("budget", [1 << 26, 1000])
def test_the_solution_is_that_of_scikit_learn(l2: float, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUDGET", budget)  # in one part and in many
    x, y = made(300, 0)
    scaler = StandardScaler().fit(x)
    theirs = LogisticRegression(C=1 / (l2 * len(x)), max_iter=2000, tol=1e-8).fit(scaler.transform(x), y)
    ours, done = fit(x, y, 5, l2, tolerance=1e-8)
    assert done
    torch.testing.assert_close(ours.weight, torch.from_numpy(theirs.coef_), rtol=1e-3, atol=1e-4)
    test, _ = made(200, 1)
    logits = torch.from_numpy(theirs.decision_function(scaler.transform(test)))
    torch.testing.assert_close(ours(test).softmax(1), logits.softmax(1), rtol=1e-3, atol=1e-4)


def test_independent_labels_are_those_of_scikit_learn_one_by_one() -> None:
    x, y = made(300, 0)
    many = torch.stack([y == 0, y < 2, (x[:, 3] > 3.1)], 1).double()
    ours, done = fit(x, many, 3, 1e-2, tolerance=1e-8)
    scaled = StandardScaler().fit_transform(x)
    for column in range(3):
        theirs = LogisticRegression(C=1 / (1e-2 * len(x)), max_iter=2000, tol=1e-10).fit(scaled, many[:, column])
        torch.testing.assert_close(ours.weight[column], torch.from_numpy(theirs.coef_[0]), rtol=1e-3, atol=1e-4)
        assert float(ours.bias[column]) == pytest.approx(theirs.intercept_[0], rel=1e-3)
    assert done


def test_at_its_own_tolerance_the_loss_is_nearly_the_least() -> None:
    x, y = made(600, 0, noise=2.5)
    z = (x - x.mean(0)) / x.std(0, correction=0).clamp_min(1e-9)
    losses = []
    for tolerance in (module.TOLERANCE, 1e-9):
        model, _ = fit(x, y, 5, 1e-3, tolerance=tolerance)
        loss = torch.nn.functional.cross_entropy(torch.addmm(model.bias, z, model.weight.T), y)
        losses.append(float(loss + 1e-3 / 2 * model.weight.square().sum()))
    assert losses[1] <= losses[0] < 1.01 * losses[1]


def test_a_start_elsewhere_ends_in_the_same_place() -> None:
    x, y = made(300, 0)
    cold, _ = fit(x, y, 5, 1e-2, tolerance=1e-8)
    warm, _ = fit(x, y, 5, 1e-2, fit(x, y, 5, 1.0)[0], tolerance=1e-8)
    torch.testing.assert_close(warm.weight, cold.weight, rtol=1e-3, atol=1e-4)


def test_accuracy_is_close_to_the_best_possible_and_says_how_it_was_chosen() -> None:
    (x, y), (xv, yv) = made(600, 0, noise=2.5), made(400, 1, noise=2.5)
    s = linear(features(x, y), features(xv, yv))
    best = max(
        LogisticRegression(C=c, max_iter=1000)
        .fit(StandardScaler().fit_transform(x), y)
        .score(StandardScaler().fit(x).transform(xv), yv)
        for c in (1e-3, 1e-2, 1e-1, 1.0)
    )
    assert 0.5 < best < 0.95
    assert s.top1 > best - 0.03
    assert s.top5 == 1.0
    tried = s.protocol["held_out_top1"]
    assert max(tried.values()) == tried[f"{s.protocol['l2']:g}"]
    assert s.protocol["held_out"] == pytest.approx(120, abs=5)
    assert (s.n_train, s.n_test, s.classes, s.notes) == (600, 400, 5, ())


def test_the_test_set_decides_nothing() -> None:
    (x, y), (xv, yv) = made(200, 0, noise=3), made(100, 1, noise=3)
    honest = linear(features(x, y), features(xv, yv)).protocol
    assert linear(features(x, y), features(xv, yv.flip(0))).protocol == honest
    assert linear(features(x, y), features(xv, yv), seed=1).protocol["held_out_top1"] != honest["held_out_top1"]


def test_noise_asks_for_a_strong_penalty_and_signal_for_a_weak_one() -> None:
    x, y = made(60, 0, noise=6, width=80)
    strong = linear(features(x, y), features(*made(50, 1, noise=6, width=80))).protocol["l2"]
    x, y = made(600, 0, noise=0.5)
    weak = linear(features(x, y), features(*made(50, 1, noise=0.5))).protocol["l2"]
    assert strong > weak


def test_held_out_images_are_a_fifth_of_each_class_and_never_all_of_one() -> None:
    labels = torch.tensor([0] * 50 + [1] * 3 + [2])
    keep, out = split(labels, 0.2, 0)
    assert sorted([*keep.tolist(), *out.tolist()]) == list(range(54))
    assert labels[out].bincount(minlength=3).tolist() == [10, 1, 0]
    assert torch.equal(split(labels, 0.2, 0)[1], out)


def test_one_image_a_class_is_fitted_without_a_choice() -> None:
    x, y = made(200, 0, noise=0.3)
    first = torch.tensor([int((y == c).nonzero()[0]) for c in range(5)])
    s = linear(features(x[first], y[first]), features(x, y))
    assert "no class has an image to spare" in s.notes[0]
    assert s.protocol["held_out"] == 0 and s.top1 > 0.5
