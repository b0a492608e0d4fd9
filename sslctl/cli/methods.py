"""``sslctl methods``: which objectives and recipes there are, and one of them whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SpecError, closest
from . import output
from .options import Json

if TYPE_CHECKING:
    from ..methods.base import Method
    from ..methods.recipes import Recipe


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="[METHOD]", help="One of them, whole.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """List the methods with their papers, recipes and published accuracy; or show one with all its parameters.

    Examples:

      sslctl methods

      sslctl methods dino --json
    """
    from ..methods import METHODS, canonical

    if name is None:
        rows = [_row(key) for key in METHODS]
        output.emit({"methods": rows}, as_json, _table(rows))
        return
    key = canonical(name)
    if key not in METHODS:
        raise SpecError(f"method '{name}': no such method{closest(name, list(METHODS))}", "`sslctl methods` lists them")
    found = _describe(key)
    output.emit(found, as_json, _whole(found))


def _row(name: str) -> dict[str, Any]:
    from ..methods import METHODS
    from ..methods.recipes import SMALL, published

    entry, runs = METHODS[name], published(name)
    return {
        "name": name,
        "title": entry.title,
        "paper": entry.paper,
        "year": entry.year,
        "kind": entry.kind,
        "recipes": [SMALL, *(run.name for run in runs)],
        "linear": max((run.linear for run in runs if run.linear is not None), default=None),
        "knn": max((run.knn for run in runs if run.knn is not None), default=None),
    }


def _table(rows: list[dict[str, Any]]) -> str:
    head = ["method", "paper", "kind", "linear", "knn", "recipes"]
    lines = [head]
    for row in rows:
        scores = ["" if row[key] is None else f"{row[key]:.1f}" for key in ("linear", "knn")]
        lines.append([row["name"], row["paper"], row["kind"], *scores, ", ".join(row["recipes"])])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head) - 1)]
    text = ["  ".join([*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[-1]]) for line in lines]
    notes = ["", "linear, knn: best published top-1 on ImageNet, in per cent. sslctl methods NAME shows one whole."]
    return "\n".join(text + notes)


def _describe(name: str) -> dict[str, Any]:
    """All that there is to say of a method, as JSON."""
    import inspect

    from ..methods import load_method
    from ..methods.recipes import published, small

    method = load_method(name)
    defaults = method.Params().model_dump(mode="json")
    return {
        **_row(name),
        "description": inspect.cleandoc(method.__doc__ or ""),
        "parameters": [
            {"name": key, "default": defaults[key], "description": field.description or ""}
            for key, field in method.Params.model_fields.items()
        ],
        "views": _views(method),
        "recipe": method.recipe,
        "recipes": [_recipe(recipe) for recipe in (small(name), *published(name))],
    }


def _views(method: type[Method[Any]]) -> dict[str, Any]:
    views = method.views
    kinds = {f"global {i + 1}": view for i, view in enumerate(views.globals)} | {"local": views.local}
    described = {kind: view.model_dump(mode="json", exclude={"size"}) for kind, view in kinds.items()}
    return {"multi_crop": views.crops, **described, "mean": list(views.mean), "std": list(views.std)}


def _recipe(recipe: Recipe) -> dict[str, Any]:
    return {"name": recipe.name, "linear": recipe.linear, "knn": recipe.knn, "spec": recipe.layer}


def _whole(found: dict[str, Any]) -> str:
    """A described method as text: a heading a line, then what belongs to it, recipes as YAML."""
    lines = [f"{found['title']} · {found['kind']} · {found['paper']}", "", found["description"], "", "parameters"]
    width = max((len(p["name"]) for p in found["parameters"]), default=0)
    for p in found["parameters"]:
        lines.append(f"  {p['name']:{width}}  {_value(p['default'])}  {p['description']}".rstrip())
    lines += ["", "views", *(f"  {key}: {_inline(value)}" for key, value in found["views"].items())]
    lines += ["", "recipe, where nothing else is said", *_yaml(found["recipe"])]
    for recipe in found["recipes"]:
        scores = [f"{key} {recipe[key]} %" for key in ("linear", "knn") if recipe[key] is not None]
        lines += ["", " · ".join([f"--recipe {recipe['name']}", *scores]), *_yaml(recipe["spec"])]
    return "\n".join(lines)


def _value(default: Any) -> str:
    """A parameter's default; a schedule in a few words."""
    if not isinstance(default, dict) or "shape" not in default:
        return _inline(default)
    if default["shape"] == "constant":
        return f"{default['base']:g}"
    return f"{default['base']:g} to {default['end']:g}, {default['shape']}"


def _inline(value: Any) -> str:
    import yaml

    return (
        str(yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6))
        .removesuffix("\n...\n")
        .strip()
    )


def _yaml(layer: dict[str, Any]) -> list[str]:
    return [f"  {section}: {_inline(values)}" for section, values in layer.items()]
