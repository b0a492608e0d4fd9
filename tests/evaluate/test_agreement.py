"""Scores from the command line against evaluators written out plainly, on the same features, image by image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from sslctl.evaluate.linear.logistic import fit
from sslctl.evaluate.linear.sgd_heads import Heads

from ..cli.calling import call, result, tiny_resnet
from ..training import picture_folder

Set = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("agreement")
    picture_folder(folder / "train", 120, 5)
    picture_folder(folder / "test", 230, 5)  # the first 120 pictures of it are those of train
    return folder


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Path:
    return tiny_resnet(folder / "train", folder / "run")


@pytest.fixture(scope="module")
def sets(folder: Path, encoder: Path) -> tuple[Set, Set]:
    """Features as ``sslctl embed`` writes them, and labels by the names of the class folders."""
    parts = []
    for name in ("train", "test"):
        file = folder / f"{name}.npy"
        done = call("embed", encoder, folder / name, "--out", file, "--json")
        assert done.exit_code == 0, done.output
        names = sorted(str(path.relative_to(folder / name)) for path in (folder / name).rglob("*.*"))
        labels = torch.tensor([int(text.removeprefix("class")[0]) for text in names])
        parts.append((torch.from_numpy(np.load(file)), labels))
    return parts[0], parts[1]


def dino_knn(train: Set, test: Set, k: int, temperature: float, classes: int) -> tuple[float, float]:
    """As facebookresearch/dino eval_knn.py counts: one-hot votes, in a hundred parts of the test set."""
    (x, y), (q, labels) = ((F.normalize(a, dim=1), b) for a, b in (train, test))
    first = fifth = 0
    for part, own in zip(q.split(len(q) // 100), labels.split(len(q) // 100), strict=True):
        similarity, near = (part @ x.T).topk(k)
        votes = (F.one_hot(y[near], classes) * (similarity / temperature).exp()[:, :, None]).sum(1)
        right = votes.sort(1, descending=True)[1] == own[:, None]
        first, fifth = first + int(right[:, 0].sum()), fifth + int(right[:, :5].sum())
    return first / len(q), fifth / len(q)


@pytest.mark.parametrize("k", [1, 10, 20])
def test_knn_agrees_with_dino_to_the_last_image(k: int, folder: Path, encoder: Path, sets: tuple[Set, Set]) -> None:
    found = result("knn", encoder, "--data", folder / "train", "--val-data", folder / "test", "--k", k)
    top1, top5 = dino_knn(*sets, k, 0.07, 5)
    assert (found["n_train"], found["n_test"]) == (120, 230) and 0.2 < top1 < 1
    assert round(found["top1"] * 230) == round(top1 * 230)
    assert k < 5 or round(found["top5"] * 230) == round(top5 * 230)


def test_the_reference_itself_is_that_of_dino() -> None:
    golden = load_file(Path(__file__).parent.parent / "golden" / "dino_knn.safetensors")
    sets = [(golden[f"{part}_features"], golden[f"{part}_labels"]) for part in ("train", "test")]
    for k in (10, 20, 100):
        assert [100 * share for share in dino_knn(sets[0], sets[1], k, 0.07, 10)] == pytest.approx(
            golden[f"k{k}.top1_top5_percent"].tolist(), abs=1e-9
        )


def test_linear_eval_agrees_with_scikit_learn_to_the_last_image(
    folder: Path, encoder: Path, sets: tuple[Set, Set]
) -> None:
    found = result("linear-eval", encoder, "--data", folder / "train", "--val-data", folder / "test")
    (x, y), (q, labels) = sets
    ours, _ = fit(x, y, 5, found["protocol"]["l2"], tolerance=1e-7)
    scaler = StandardScaler().fit(x.double())
    model = LogisticRegression(C=1 / (found["protocol"]["l2"] * len(x)), max_iter=5000, tol=1e-9)
    model.fit(scaler.transform(x.double()), y)
    theirs = torch.from_numpy(model.predict(scaler.transform(q.double())))
    assert torch.equal(ours(q).argmax(1), theirs)
    assert abs(found["top1"] - float((theirs == labels).double().mean())) <= 0.03  # it stops a little earlier


def test_a_head_is_that_of_the_plain_loop_prediction_by_prediction(sets: tuple[Set, Set]) -> None:
    """nn.Linear and torch's SGD, as main_lincls.py of MoCo and eval_linear.py of DINO have them."""
    (x, y), (q, _) = sets
    rates, decay = (0.3, 0.03), 1e-6
    heads = Heads(x.shape[1], 5, rates, weight_decay=decay, seed=4)
    plain = []
    for i, rate in enumerate(rates):
        head = nn.Linear(x.shape[1], 5)
        with torch.no_grad():
            head.weight.copy_(heads.weight[i])
            head.bias.copy_(heads.bias[i])
        plain.append((head, torch.optim.SGD(head.parameters(), rate, momentum=0.9, weight_decay=decay)))
    for step in range(60):
        rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(step))[:32]
        heads.step(x[rows], y[rows], 1.0)
        for head, optimizer in plain:
            optimizer.zero_grad()
            F.cross_entropy(head(x[rows]), y[rows]).backward()
            optimizer.step()
    for i, (head, _) in enumerate(plain):
        torch.testing.assert_close(heads.weight[i], head.weight.detach(), rtol=1e-4, atol=1e-5)
        assert torch.equal(heads(q)[i].argmax(1), head(q).argmax(1))
