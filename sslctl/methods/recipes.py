"""Recipes by name: the published runs and, for every method, the small one, as layers of a spec."""

from __future__ import annotations

import functools
import string
from pathlib import Path
from typing import NamedTuple

from ..errors import SpecError, closest
from ..spec.parsing import merge, parse_yaml
from ..spec.schema import Data
from . import METHODS

FILE = Path(__file__).with_name("recipes.yaml")
SMALL = "small"
ALONE = ("pretext", "supervised")
"""Kinds of methods that compare no views."""


class Recipe(NamedTuple):
    """What a published run says beyond the method's own recipe; its top-1 percentages on ImageNet, where published."""

    name: str
    layer: Data
    linear: float | None = None
    knn: float | None = None

    @property
    def method(self) -> str:
        return str(self.layer["method"]["name"])


def published(method: str | None = None) -> list[Recipe]:
    """The published runs, of one method or of all."""
    recipes = []
    for name, entry in _table().items():
        layer = {key: value for key, value in entry.items() if key not in ("linear", "knn")}
        if name != SMALL and method in (None, layer["method"]["name"]):
            recipes.append(Recipe(name, layer, entry.get("linear"), entry.get("knn")))
    return recipes


def small(method: str) -> Recipe:
    """The recipe for thousands of images on one device or a CPU."""
    parts = _table()[SMALL]
    layers = [parts["all"]] if METHODS[method].kind in ALONE else [parts["all"], parts["views"]]
    return Recipe(SMALL, stack(*layers, parts.get(method, {}), {"method": {"name": method}}))


def find_recipe(name: str, method: str | None) -> Recipe:
    """The recipe of that name; ``method`` is what else the user says, which small needs and others must agree with."""
    if name == SMALL and method is None:
        raise SpecError("--recipe small: there is one for each method", "say which, for example --method swav")
    if name == SMALL and method is not None:
        return small(method)
    found = {recipe.name: recipe for recipe in published()}.get(name)
    if found is None:
        known = [SMALL, *(recipe.name for recipe in published(method))]
        raise SpecError(f"--recipe '{name}': no such recipe{closest(name, known)}", "`sslctl methods` lists them")
    if method not in (None, found.method):
        raise SpecError(f"--recipe {name}: is for {found.method}, not {method}", "leave --method out")
    return found


def stack(*layers: Data) -> Data:
    """``merge``, but what belongs to another optimizer, family of backbones or length than a later layer's is gone."""
    result: Data = {}
    for layer in layers:
        result = dict(result)
        mine, theirs = layer.get("optim", {}), result.get("optim", {})
        if mine.get("name", theirs.get("name")) != theirs.get("name"):
            result.pop("optim", None)
        mine, theirs = layer.get("backbone", {}), result.get("backbone", {})
        if "arch" in mine and "arch" in theirs and family(mine["arch"]) != family(theirs["arch"]):
            result.pop("backbone")
        if {"steps", "epochs"} & layer.get("run", {}).keys():
            result["run"] = {k: v for k, v in result.get("run", {}).items() if k not in ("steps", "epochs")}
        result = merge(result, layer)
    return result


def family(arch: str) -> str:
    """``resnet18`` -> ``resnet``: the models of timm whose further arguments are alike."""
    return arch[: len(arch) - len(arch.lstrip(string.ascii_lowercase))]


@functools.cache
def _table() -> Data:
    table: Data = parse_yaml(FILE.read_text("utf-8"), FILE.name)
    return table
