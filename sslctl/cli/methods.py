"""``sslctl methods``: which objectives and recipes there are, and one of them whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from ..tasks.methods import describe_method, list_methods
from ..tasks.options import Option
from . import output

if TYPE_CHECKING:
    from ..tasks.results import MethodDetails, MethodList, RecipeRow


def run(
    name: Annotated[str | None, Option("One of them, whole.", metavar="[METHOD]")] = None,
) -> MethodList | MethodDetails:
    """All methods, or one."""
    return list_methods() if name is None else describe_method(name)


def methods(result: MethodList | MethodDetails) -> str:
    """List the methods with their papers, recipes and published accuracy; or show one with all its parameters.

    Examples:

      sslctl methods

      sslctl methods dino --json
    """
    from ..tasks.results import MethodList

    return _table(result) if isinstance(result, MethodList) else _whole(result)


def _table(found: MethodList) -> str:
    rows = []
    for row in found.methods:
        scores = ["" if score is None else f"{score:.1f}" for score in (row.linear, row.knn)]
        rows.append([row.name, row.paper, row.kind, *scores, ", ".join(row.recipes)])
    text = output.table(["method", "paper", "kind", "linear", "knn", "recipes"], rows)
    return f"{text}\n\nlinear, knn: best published top-1 on ImageNet, in per cent. sslctl methods NAME shows one whole."


def _whole(found: MethodDetails) -> str:
    """One method: a heading a line, then what belongs to it, recipes as YAML."""
    lines = [f"{found.title} · {found.kind} · {found.paper}", "", found.description, "", "parameters"]
    width = max((len(p.name) for p in found.parameters), default=0)
    for p in found.parameters:
        lines.append(f"  {p.name:{width}}  {_value(p.default)}  {p.description}".rstrip())
    lines += ["", "views", *(f"  {key}: {_inline(value)}" for key, value in found.views.items())]
    lines += ["", "recipe, where no other is chosen", *_yaml(found.recipe)]
    for recipe in found.recipes:
        lines += ["", _heading(recipe), *_yaml(recipe.spec)]
    return "\n".join(lines)


def _heading(recipe: RecipeRow) -> str:
    scores = [
        f"{key} {value} %" for key, value in (("linear", recipe.linear), ("knn", recipe.knn)) if value is not None
    ]
    return " · ".join([f"--recipe {recipe.name}", *scores])


def _value(default: Any) -> str:
    """A parameter's default; a schedule in a few words."""
    if not isinstance(default, dict) or "shape" not in default:
        return _inline(default)
    if default["shape"] == "constant":
        return f"{default['base']:g}"
    return f"{default['base']:g} to {default['end']:g}, {default['shape']}"


def _inline(value: Any) -> str:
    import yaml

    text = str(yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6))
    return text.removesuffix("\n...\n").strip()


def _yaml(layer: dict[str, Any]) -> list[str]:
    return [f"  {section}: {_inline(values)}" for section, values in layer.items()]
