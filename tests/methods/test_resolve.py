"""How a whole spec comes about: the user's words over a recipe over the paper's values; every error at once."""

from __future__ import annotations

from typing import Any

import pytest

from sslctl.errors import SpecError
from sslctl.methods import load_method
from sslctl.methods.recipes import published
from sslctl.methods.resolve import resolve


def user(**sections: Any) -> dict[str, Any]:
    return {"data": {"path": "photos"}, **sections}


def test_the_papers_values_are_below_what_the_user_says() -> None:
    plain = resolve(user(method={"name": "swav"}))
    own = load_method("swav")
    assert plain.method_params() == own.Params().model_dump(mode="json")
    assert plain.optim.name == own.recipe["optim"]["name"]
    mine = resolve(user(method={"name": "swav", "prototypes": 77}, optim={"clip": 3.0}))
    assert mine.method_params()["prototypes"] == 77 and mine.optim.clip == 3.0 and mine.optim.lr == plain.optim.lr


def test_a_recipe_lies_between_and_names_the_method() -> None:
    recipe = next(r for r in published("swav") if r.layer.get("method"))
    spec = resolve(user(), recipe.name)
    assert spec.method.name == "swav"
    for key, value in recipe.layer["method"].items():
        if key != "name":
            assert spec.method_params()[key] == value
    key = next(key for key in recipe.layer["method"] if key == "prototypes" or key == "queue")
    assert resolve(user(method={"name": "swav", key: 8}), recipe.name).method_params()[key] == 8


def test_another_family_of_backbone_brings_its_published_training() -> None:
    resnet = resolve(user(method={"name": "dino"}, backbone={"arch": "resnet50"}))
    vit = resolve(user(method={"name": "dino"}))
    alike = next(r for r in published("dino") if "resnet" in r.layer.get("backbone", {}).get("arch", ""))
    assert resnet.optim.name == alike.layer["optim"]["name"] != vit.optim.name and resnet.backbone.arch == "resnet50"


def test_every_error_comes_at_once_with_suggestions() -> None:
    with pytest.raises(SpecError) as refused:
        resolve(user(method={"name": "swav", "prototypse": 3}, optim={"lrr": 1}, run={"steps": "many"}))
    assert all(word in refused.value.message for word in ("'prototypes'", "'lr'", "run.steps"))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"method": {"name": "swva"}}, "did you mean 'swav'"),
        ({"method": {}}, r"method\.name"),
        ({}, "method"),
        ({"method": 3}, "method"),
        ({"method": {"name": "swav"}, "optim": {"name": "adamw"}}, r"optim\.lr.*'adamw'"),
        ({"method": {"name": "mae"}, "backbone": {"arch": "resnet18"}}, "not a ViT, which mae needs"),
    ],
)
def test_what_is_missing_or_does_not_go_together_is_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        resolve(user(**sections))


def test_the_users_own_dictionary_stays_as_it_is() -> None:
    mine = user(method={"name": "moco"})
    resolve(user(method={"name": "simclr"}))
    with pytest.raises(SpecError):
        resolve(mine)
    assert mine == user(method={"name": "moco"})
