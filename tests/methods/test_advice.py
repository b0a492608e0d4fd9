"""What is said of a spec beside its data: derived numbers, and combinations known to fail, each with a way out."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from sslctl.layers.losses import info_nce, mean_of_others, queue_contrast, swapped_cross_entropy
from sslctl.methods import METHODS
from sslctl.methods.advice import chance, derivation, warnings
from sslctl.methods.resolve import resolve
from sslctl.methods.simclr import nt_xent
from sslctl.spec.derived import total_steps
from sslctl.spec.schema import Spec


def spec(method: dict[str, Any], recipe: str | None = None, **sections: Any) -> Spec:
    return resolve({"data": {"path": "demo"}, "method": method, **sections}, recipe)


def test_numbers_follow_from_the_spec_and_the_set() -> None:
    small = spec({"name": "moco-v2", "momentum": 0.99}, "small", optim={"lr": 0.004})
    assert total_steps(small.run, 4000) == 20 * 31
    assert derivation(small, 4000) == [
        "learning rate 0.002 = 0.004 x 128/256",
        "the teacher averages over about 100 of 620 steps (momentum 0.99)",
        "the queue holds 8 batches, 26% of the images",
    ]
    root = spec(
        {"name": "swav", "queue": 0}, "small", optim={"lr": 0.004, "lr_scaling": "sqrt"}, run={"batch_size": 64}
    )
    assert derivation(root, 4000) == [
        "learning rate 0.002 = 0.004 x sqrt(64/256)",
        "128 prototypes: 31.2 images and 0.5 of a batch to each",
    ]
    assert derivation(spec({"name": "simsiam"}, optim={"lr_scaling": "none"}), 4000) == ["learning rate 0.05 = 0.05"]
    twins = spec({"name": "barlow-twins", "out": 201, "redundancy": 0.05}, optim={"lr_scaling": "none"})
    assert derivation(twins, 4000)[1:] == ["redundancy 0.05 x 200 other outputs: 10 to 1 (the paper's 42)"]


FAILING = {
    "queue": ({"name": "moco-v2", "momentum": 0.9}, {"epochs": 300}, "more than the 4000 images"),
    "momentum": ({"name": "byol"}, {"epochs": 12}, r"averages over 250 steps in a run of 180, .*momentum=0.94"),
    "balance": ({"name": "swav", "queue": 0}, {"epochs": 100}, "loss stays at ln 3000"),
    "prototypes": ({"name": "dino", "momentum": 0.9}, {"epochs": 100}, "prototypes 65536: more than the 4000 images"),
    "frozen": ({"name": "swav", "prototypes": 100}, {"steps": 10}, "freeze_prototypes_epochs 1: the prototypes never"),
    "filling": ({"name": "deepcluster-v2", "prototypes": [50]}, {"epochs": 1}, "only fills the memory"),
    "patches": ({"name": "cpc"}, {"epochs": 10}, "resnet18: its batch norm"),
    "warmup": ({"name": "simclr"}, {"epochs": 5}, r"still rising when the run of 4.* ends; .*warmup_epochs=0.48"),
}


@pytest.mark.parametrize("kind", FAILING)
def test_combinations_known_to_fail_are_named(kind: str) -> None:
    method, run, message = FAILING[kind]
    sections = {"backbone": {"arch": "resnet18"}} if kind == "patches" else {}
    found = warnings(spec(method, run=run, **sections), 4000)
    assert any(re.search(message, line) for line in found), found
    if kind not in ("balance", "frozen", "filling", "momentum"):
        assert len(found) == 1


def test_published_runs_fit_imagenet() -> None:
    for recipe in (
        "swav-r50-800ep",
        "swav-r50-200ep-batch256",
        "dino-vits16-300ep",
        "byol-r50-1000ep",
        "moco-v2-r50-200ep",
    ):
        assert warnings(resolve({"data": {"path": "imagenet"}}, recipe), 1_281_167) == []


def level(method: str, images: int = 0, **params: Any) -> float:
    user = {"data": {"path": "x"}, "views": {"multi_crop": "2x32"}, "method": {"name": method, **params}}
    found = chance(resolve(user | {"run": {"batch_size": 8}}), images).level
    assert found is not None
    return found


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_is_normal_of_its_loss(name: str) -> None:
    found = chance(resolve({"data": {"path": "x"}, "method": {"name": name}}), images=5000, classes=10)
    assert len(found.normal) > 20 and (found.level is None) == (found.formula == "")
    assert found.level is None or math.isfinite(found.level)


def test_chance_is_the_loss_of_embeddings_that_are_all_alike() -> None:
    same = F.normalize(torch.ones(2, 8, 4), dim=-1)  # (V, B, D)
    assert level("simclr") == pytest.approx(float(nt_xent(same, 2, 0.1)))
    assert level("moco-v2", queue=50) == pytest.approx(
        float(queue_contrast(same, same, same[0, :1].expand(50, -1), 0.2).mean())
    )
    assert level("moco-v2", images=20, queue=50) == pytest.approx(math.log(21))
    contrast = float(mean_of_others(info_nce(same, same, 0.2)))
    assert level("nnclr") == pytest.approx(contrast) == level("end-to-end")
    assert level("moco-v3", temperature=0.2) == pytest.approx(2 * 0.2 * 2 * contrast)
    uniform = torch.full((2, 8, 12), 1 / 12)
    assert level("swav", prototypes=12) == pytest.approx(
        float(swapped_cross_entropy(uniform, torch.zeros(2, 8, 12), 0.1))
    )
    assert level("dino", prototypes=12) == level("deepcluster-v2", prototypes=[12, 12]) == level("swav", prototypes=12)
    assert level("rotnet", turns=4) == pytest.approx(float(F.cross_entropy(torch.zeros(1, 4), torch.tensor([0]))))
