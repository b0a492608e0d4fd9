"""Recipes under what a user says: parameters merged key by key, a recipe's backbone only for backbones of its kind."""

from __future__ import annotations

from typing import Any

import pytest

from sslctl.errors import SpecError
from sslctl.resolve import resolve


def spec(method: dict[str, Any], **sections: Any) -> Any:
    return resolve({"data": {"path": "demo"}, "method": method, **sections})


def test_the_recipe_fills_what_the_user_leaves_open() -> None:
    found = spec({"name": "dino"}, optim={"lr": 0.001})
    assert found.optim.lr == 0.001 and found.optim.clip_each and found.optim.weight_decay_end == 0.4
    assert found.backbone.arch == "vit_small_patch16_224" and found.backbone.position == "dino"
    assert found.run.epochs == 100


def test_a_backbone_of_another_family_does_not_take_the_recipes_arguments() -> None:
    vit = spec({"name": "dino"}, backbone={"arch": "vit_tiny_patch16_224"}).backbone
    assert vit.position == "dino" and vit.drop_path == 0.1
    cnn = spec({"name": "dino"}, backbone={"arch": "resnet18"}).backbone
    assert cnn.position == "timm" and cnn.drop_path == 0.0
    assert spec({"name": "swav"}, backbone={"arch": "resnet18"}).backbone.args == {"zero_init_last": False}
    assert spec({"name": "swav"}, backbone={"arch": "vit_tiny_patch16_224"}).backbone.args == {}


def test_one_value_of_a_schedule_leaves_the_others_as_they_are() -> None:
    params = spec({"name": "dino", "momentum": {"base": 0.99}}).method_params()
    assert params["momentum"]["base"] == 0.99 and params["momentum"]["end"] == 1.0
    warmed = spec({"name": "dino", "teacher_temperature": {"base": 0.07, "warmup_from": 0.04, "warmup_epochs": 30}})
    assert warmed.method_params()["teacher_temperature"]["per_epoch"] is True
    assert spec({"name": "dino", "momentum": 0.9}).method_params()["momentum"]["shape"] == "constant"


def test_steps_replace_the_recipes_epochs() -> None:
    found = spec({"name": "swav"}, run={"steps": 10})
    assert found.run.steps == 10 and found.run.epochs is None


def test_parameters_out_of_range_are_named() -> None:
    with pytest.raises(SpecError) as refused:
        spec({"name": "dino", "momentum": 1.5, "center_momentun": 0.5})
    assert "method.momentum" in refused.value.message and "between 0 and 1" in refused.value.message
    assert "did you mean 'center_momentum'" in refused.value.message
