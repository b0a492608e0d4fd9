"""Recipes by name: the published runs and, for every method, the small one, as layers of a spec.

Where the percentages of published runs come from: linear of MoCo v1 and v2, SwAV, DeepCluster-v2, SimSiam at 100
epochs, VICReg, Barlow Twins, DINO (kNN too) and MoCo v3 at 300 epochs were read in the authors' repositories. The rest
is quoted from the papers: kNN of ResNets from DINO's, table 2; RotNet and Jigsaw on a ResNet-50 from VISSL. MoCo v3's
repository has 74.8 at 1000 epochs where the paper has 74.6, SimCLR's 69.1 for a later checkpoint, BYOL's 74.0 to 74.5.
"""

from __future__ import annotations

import ast
import functools
import string
from pathlib import Path
from typing import NamedTuple

from ..errors import SpecError, closest
from ..spec.parsing import merge, parse_yaml
from ..spec.schema import Data
from . import METHODS, load_method

SMALL = "small"

# For sets of thousands of images on one device or a CPU: a narrow ResNet (its stem small by itself below 64 px), small
# heads, a batch of 128 and some hundred to some thousand steps. What scales with those each method's own part says:
# teachers look back over fifty steps, not a thousand, queues hold a quarter of the set, clusters dozens of images.
SMALL_RUN = """
    backbone:
      {arch: resnet18, args: {layers: [1, 1, 1, 1], channels: [16, 32, 64, 128], stem_type: deep, stem_width: 8}}
    optim:
      {name: adamw, lr: 0.01, lr_scaling: linear, lr_end: 2e-5, schedule: cosine, per_epoch: false, warmup_epochs: 1,
       weight_decay: 1e-4, betas: [0.9, 0.999]}
    run: {epochs: 20, batch_size: 128}
"""

# Small pictures hold one thing, of which the papers' crops, down to a twentieth of the area, leave nothing to agree on.
# Small nets agree on colours before anything else, so the views keep less of them, by hue rather than by brightness, of
# which too much leaves little of small pictures. They are blurred as they are.
SMALL_VIEWS = """
    views: {scale: [0.7, 1], local_scale: [0.3, 0.7], jitter: 1, hue: 0.4, grayscale: 0.4, solarize: 0.2, blur: 0}
"""


class Recipe(NamedTuple):
    """What a run of ``method`` says beyond the method's own recipe; its top-1 on ImageNet in per cent, if published."""

    name: str
    method: str
    layer: Data
    linear: float | None = None
    knn: float | None = None


def published(method: str | None = None) -> list[Recipe]:
    """Return the published runs, of one method or of all."""
    names = METHODS if method is None else [method]
    return [recipe for name in names for recipe in _own(name).values() if recipe.name != SMALL]


def small(method: str) -> Recipe:
    """Return the recipe for thousands of images on one device or a CPU."""
    shared = [SMALL_RUN, SMALL_VIEWS] if load_method(method).compares_views else [SMALL_RUN]
    own = _own(method)
    layers = [_parse(text, SMALL) for text in shared] + ([own[SMALL].layer] if SMALL in own else [])
    return Recipe(SMALL, method, stack(*layers, {"method": {"name": method}}))


def find_recipe(name: str, method: str | None) -> Recipe:
    """Return the recipe ``name``; ``method`` is what else the user says, which small needs and others must agree with.

    Raises SpecError where there is none of that name, or where it is another method's.
    """
    if name == SMALL:
        if method is None:
            raise SpecError("--recipe small: every method has one", "add the method, for example --method swav")
        return small(method)
    owner = max((m for m in METHODS if name.startswith(f"{m}-")), key=len, default=None)  # by which its name begins
    recipe = _own(owner).get(name) if owner else None
    if recipe is None:
        known = [SMALL, *(recipe.name for recipe in published(method))]
        raise SpecError(f"--recipe '{name}': no such recipe{closest(name, known)}", "`sslctl methods` lists them")
    if method not in (None, recipe.method):
        raise SpecError(f"--recipe {name}: is for {recipe.method}, not {method}", "leave --method out")
    return recipe


def stack(*layers: Data) -> Data:
    """Merge layers, dropping what belongs to another optimizer, backbone family or length than a later layer's."""
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
    """Return the family of timm's models with like arguments: ``resnet18`` -> ``resnet``."""
    return arch[: len(arch) - len(arch.lstrip(string.ascii_lowercase))]


@functools.cache
def _own(method: str) -> dict[str, Recipe]:
    """Return the recipes in a method's file, by name, ``small`` among them."""
    recipes = {}
    for name, entry in (_parse(_text(method), method) or {}).items():
        layer = {key: value for key, value in entry.items() if key not in ("linear", "knn")}
        layer["method"] = {"name": method, **layer.get("method", {})}
        recipes[name] = Recipe(name, method, layer, entry.get("linear"), entry.get("knn"))
    return recipes


def _text(method: str) -> str:
    """Return ``recipes`` of the method's class from its source: listing the recipes of all methods imports no torch."""
    module, _, cls = METHODS[method].where.partition(":")
    tree = ast.parse(Path(__file__).with_name(f"{module}.py").read_text("utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls)
    assigned = [node for node in body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "recipes"]
    return str(ast.literal_eval(assigned[0].value)) if assigned else ""


def _parse(text: str, where: str) -> Data:
    data: Data = parse_yaml(text, where)
    return data
