"""The whole spec from the user's part: over a recipe, every parameter filled in, all errors at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import closest
from ..spec.parsing import check, check_spec, merge, problems, refuse
from ..spec.schema import Data, Spec
from . import METHODS, canonical, load_method
from .recipes import Recipe, family, find_recipe, published, stack

if TYPE_CHECKING:
    from .base import Method


def resolve(user: Data, recipe: str | None = None) -> Spec:
    """Return the whole spec: the user's values, above the recipe ``recipe``, above the method's own and its parameters.

    Raises SpecError with every error at once.
    """
    user, chosen = _named(user, recipe)
    errors = problems(Spec, user)
    section = user.get("method")
    params = dict(section) if isinstance(section, dict) else {}
    name = params.pop("name", None)
    if isinstance(name, str) and name not in METHODS:
        errors.append(
            f"method.name: '{name}' is not a method{closest(name, list(METHODS))}; known: {', '.join(METHODS)}"
        )
    if not isinstance(name, str) or name not in METHODS or (errors and not params):
        raise refuse(errors)
    method = load_method(name)
    base = _base(method, name, chosen, _arch(user))
    below = {key: value for key, value in base.pop("method", {}).items() if key != "name"}
    params = merge(method.Params().model_dump(mode="json"), below, params)
    errors += problems(method.Params, params, "method") + _optimizer_without_lr(user, base)
    if method.needs_vit:
        from ..backbones import is_vit_arch  # here, since wrong words are answered before torch loads

        if (arch := _arch(stack(base, user))) is not None and not is_vit_arch(arch):
            errors.append(f"backbone.arch: '{arch}' is not a ViT, which {name} needs; for example --arch {_arch(base)}")
    if errors:
        raise refuse(errors)
    full = check(method.Params, params, "method").model_dump(mode="json")
    return check_spec(merge(stack(base, user), {"method": {"name": name, **full}}))


def _named(user: Data, recipe: str | None) -> tuple[Data, Recipe | None]:
    """Return ``user`` with the method's name as METHODS has it, or the recipe's where there is none; and the recipe."""
    section = user.get("method", {})
    name = section.get("name") if isinstance(section, dict) else None
    if isinstance(name, str):
        name = canonical(name)
    chosen = None
    if recipe is not None and (name is None or name in METHODS):
        chosen = find_recipe(recipe, name)
        name = chosen.method
    if isinstance(name, str) and isinstance(section, dict):
        user = {**user, "method": {**section, "name": name}}
    return user, chosen


def _base(method: type[Method[Any]], name: str, chosen: Recipe | None, arch: str | None) -> Data:
    """Return what holds where the user says nothing: the method's recipe, below the chosen one.

    For a backbone of another family than that recipe's, the method's first published run with the family, if there is
    one, says how it is trained, without what belongs to one backbone, length or size of images.
    """
    base = stack(method.recipe, chosen.layer if chosen else {})
    if chosen or arch is None or family(arch) == family(_arch(base) or ""):
        return base
    alike = [r for r in published(name) if family(_arch(r.layer) or "") == family(arch)]
    if not alike:
        return base
    backbone = {key: value for key, value in alike[0].layer["backbone"].items() if key not in ("arch", "args")}
    rest = {key: value for key, value in alike[0].layer.items() if key in ("method", "optim")}
    return stack({**base, "backbone": {}}, rest, {"backbone": backbone})


def _arch(layer: Data) -> str | None:
    backbone = layer.get("backbone", {})
    arch = backbone.get("arch") if isinstance(backbone, dict) else None
    return arch if isinstance(arch, str) else None


def _optimizer_without_lr(user: Data, base: Data) -> list[str]:
    """Return an error where the optimizer is another than the recipe's, whose learning rate is meant for it."""
    mine, theirs = user.get("optim", {}), base.get("optim", {})
    if not isinstance(mine, dict) or mine.get("name", theirs.get("name")) == theirs.get("name") or "lr" in mine:
        return []
    reason = f"the recipe's {theirs.get('lr')} is for {theirs['name']}"
    return [f"optim.lr: missing `--lr`, which optim.name '{mine['name']}' needs; {reason}"]
