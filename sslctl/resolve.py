"""The whole spec from the user's part: over the method's recipe, every parameter filled in, all errors at once."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from .errors import closest
from .methods import METHODS, canonical, load_method
from .spec import Data, Spec
from .specfile import check, check_spec, merge, problems, refuse

if TYPE_CHECKING:
    from .method import Method


def resolve(user: Data) -> Spec:
    """The whole spec: what the user said over the method's recipe, with every parameter of the method.

    Raises SpecError with every error at once.
    """
    found = problems(Spec, user)
    section = user.get("method")
    params = dict(section) if isinstance(section, dict) else {}
    name = params.pop("name", None)
    if isinstance(name, str):
        name = canonical(name)
    if isinstance(name, str) and name not in METHODS:
        found.append(f"method.name: '{name}' is no method{closest(name, list(METHODS))}; known: {', '.join(METHODS)}")
    if not isinstance(name, str) or name not in METHODS or (found and not params):
        raise refuse(found)
    method = load_method(name)
    params = merge(method.Params().model_dump(mode="json"), params)
    found += problems(method.Params, params, "method") + _optimizer_without_lr(user, method)
    if found:
        raise refuse(found)
    full = check(method.Params, params, "method").model_dump(mode="json")
    return check_spec(merge(_recipe(method, user), user, {"method": {"name": name, **full}}))


def _recipe(method: type[Method[Any]], user: Data) -> Data:
    """The method's recipe without what is meant for another length or another family of backbones than the user's."""
    recipe = dict(method.recipe)
    if {"steps", "epochs"} & user.get("run", {}).keys():
        recipe["run"] = {k: v for k, v in recipe.get("run", {}).items() if k != "epochs"}
    backbone = recipe.get("backbone", {})
    arch = user.get("backbone", {}).get("arch")
    if arch is not None and _family(arch) != _family(backbone.get("arch", "")):
        recipe.pop("backbone", None)
    return recipe


def _family(arch: str) -> str:
    """``resnet18`` -> ``resnet``: the models of timm whose further arguments are alike."""
    return arch[: len(arch) - len(arch.lstrip(string.ascii_lowercase))]


def _optimizer_without_lr(user: Data, method: type[Method[Any]]) -> list[str]:
    """A learning rate is meant for one optimizer: who changes that must say this too."""
    mine, theirs = user.get("optim", {}), method.recipe.get("optim", {})
    if not isinstance(mine, dict) or mine.get("name", theirs.get("name")) == theirs.get("name") or "lr" in mine:
        return []
    reason = f"the recipe's {theirs.get('lr')} is for {theirs['name']}"
    return [f"optim.lr: must be given with optim.name '{mine['name']}'; {reason}"]
