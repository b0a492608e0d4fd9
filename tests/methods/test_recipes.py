"""Recipes under what a user says: which layer wins, and what belongs to another backbone or optimizer."""

from __future__ import annotations

from typing import Any

import pytest

from sslctl.errors import SpecError
from sslctl.methods import METHODS, load_method
from sslctl.methods.advice import warnings
from sslctl.methods.recipes import Recipe, published, stack
from sslctl.methods.resolve import resolve


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


@pytest.mark.parametrize("recipe", published(), ids=lambda recipe: recipe.name)
def test_published_recipes_are_whole_specs(recipe: Recipe) -> None:
    found = resolve({"data": {"path": "photos"}}, recipe.name)
    assert found.method.name == recipe.method and recipe.name.startswith(recipe.method.split("-")[0])
    assert set(recipe.layer) <= {"method", "views", "backbone", "optim", "run"}
    assert found.run.epochs and f"-{found.run.epochs:g}ep" in recipe.name or "epochs" not in recipe.layer.get("run", {})
    for key, value in recipe.layer["method"].items():
        given = found.method_params().get(key, found.method.name)
        assert given == value or (isinstance(value, dict) and value.items() <= given.items())
    assert 30 < (recipe.linear or 50) < 90 and (recipe.knn or 0) <= (recipe.linear or 100)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_small_recipe_without_known_failures(name: str) -> None:
    found = resolve({"data": {"path": "photos"}, "method": {"name": name}}, "small")
    assert (
        found.run.batch_size <= 128
        and (found.backbone.arch == "resnet18") != load_method(name).needs_vit
        and found.optim.warmup_epochs <= 2
    )
    assert warnings(found, images=3000) == []


def test_flags_win_over_a_recipe_and_that_over_the_methods_own() -> None:
    user = {"data": {"path": "demo"}, "method": {"name": "swav", "prototypes": 50}, "optim": {"lr": 0.1}}
    found = resolve(user, "swav-r50-800ep")
    assert found.method_params()["prototypes"] == 50 and found.method_params()["queue"] == 0
    assert found.optim.lr == 0.1 and found.optim.lr_end == 0.0048 and found.optim.name == "larc"
    assert found.run.epochs == 800 and found.run.batch_size == 4096
    shorter = resolve({**user, "run": {"steps": 7}}, "swav-r50-800ep")
    assert (shorter.run.steps, shorter.run.epochs) == (7, None)


def test_another_optimizer_takes_nothing_from_the_one_it_replaces() -> None:
    vit = resolve({"data": {"path": "demo"}}, "moco-v3-vits16-300ep")
    assert vit.optim.name == "adamw" and vit.optim.weight_decay == 0.1 and not vit.optim.warmup_reaches
    assert vit.backbone.args == {"num_heads": 12}
    stacked = stack({"optim": {"name": "sgd", "lr": 1, "nesterov": True}}, {"optim": {"name": "adamw", "lr": 2}})
    assert stacked == {"optim": {"name": "adamw", "lr": 2}}
    kept = stack({"optim": {"name": "sgd", "lr": 1, "nesterov": True}}, {"optim": {"lr": 2}})
    assert kept["optim"]["nesterov"] is True


def test_a_backbone_of_another_family_is_trained_as_the_paper_trains_that_family() -> None:
    vit = spec({"name": "moco-v3"}, backbone={"arch": "vit_tiny_patch16_224"})
    assert vit.optim.name == "adamw" and vit.optim.lr == 1.5e-4 and vit.method_params()["head_layers"] == 3
    assert vit.backbone.args == {} and vit.run.batch_size == 256 and vit.views.multi_crop is None
    cnn = spec({"name": "dino"}, backbone={"arch": "resnet50"})
    assert (
        cnn.optim.name == "sgd" and cnn.optim.lr == 0.03 and cnn.optim.clip_each and cnn.optim.weight_decay_end is None
    )
    other = spec({"name": "dino"}, backbone={"arch": "convnext_tiny"})
    assert other.optim.name == "adamw" and other.backbone.position == "timm"


def test_names_of_methods_are_known_in_any_spelling() -> None:
    assert spec({"name": "MoCo_V2"}).method.name == "moco-v2"
    assert spec({"name": "barlowtwins"}).method.name == "barlow-twins"
    assert load_method("simsiam") is not None


@pytest.mark.parametrize(
    ("recipe", "method", "message"),
    [
        ("swav-r50-80ep", None, "no such recipe — did you mean 'swav-r50-800ep'"),
        ("small", None, "every method has one"),
        ("swav-r50-800ep", "dino", "is for swav, not dino"),
        ("small", "dinno", "'dinno' is not a method — did you mean 'dino'"),
    ],
)
def test_recipes_that_cannot_be_meant_are_refused(recipe: str, method: str | None, message: str) -> None:
    user: dict[str, Any] = {"data": {"path": "demo"}} | ({"method": {"name": method}} if method else {})
    with pytest.raises(SpecError) as refused:
        resolve(user, recipe)
    assert message in refused.value.message and refused.value.hint
