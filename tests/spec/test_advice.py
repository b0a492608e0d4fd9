"""What is said of a spec beside its data: derived numbers, and combinations known to fail, each with a way out."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sslctl.methods.resolve import resolve
from sslctl.spec.advice import derivation, steps, warnings
from sslctl.spec.schema import Spec


def spec(method: dict[str, Any], recipe: str | None = None, **sections: Any) -> Spec:
    return resolve({"data": {"path": "demo"}, "method": method, **sections}, recipe)


def test_numbers_follow_from_the_spec_and_the_set() -> None:
    small = spec({"name": "moco-v2", "momentum": 0.99}, "small", optim={"lr": 0.004})
    assert steps(small, 4000) == 20 * 31
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
