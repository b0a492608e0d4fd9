"""The objectives and their recipes: all in a list, one whole."""

from __future__ import annotations

import inspect as python
from typing import TYPE_CHECKING, Any

from ..errors import SpecError, closest

if TYPE_CHECKING:
    from ..methods.base import Method
    from .results import MethodDetails, MethodList


def list_methods() -> MethodList:
    """List the methods with their papers, recipes and published accuracy."""
    from ..methods import METHODS
    from .results import MethodList, MethodRow

    return MethodList(methods=[MethodRow(**_row(name)) for name in METHODS])


def describe_method(name: str) -> MethodDetails:
    """Describe one method with all its parameters, its views and its recipes. Raises SpecError for an unknown name."""
    from ..methods import METHODS, canonical, load_method
    from ..methods.recipes import published, small
    from .results import MethodDetails, Parameter, RecipeRow

    key = canonical(name)
    if key not in METHODS:
        raise SpecError(f"method '{name}': no such method{closest(name, list(METHODS))}", "`sslctl methods` lists them")
    method = load_method(key)
    defaults = method.Params().model_dump(mode="json")
    recipes = [RecipeRow(name=r.name, linear=r.linear, knn=r.knn, spec=r.layer) for r in (small(key), *published(key))]
    return MethodDetails(
        **_row(key) | {"recipes": recipes},
        description=python.cleandoc(method.__doc__ or ""),
        parameters=[
            Parameter(name=field, default=defaults[field], description=info.description or "")
            for field, info in method.Params.model_fields.items()
        ],
        views=_views(method),
        recipe=method.recipe,
    )


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


def _views(method: type[Method[Any]]) -> dict[str, Any]:
    views = method.views
    kinds = {f"global {i + 1}": view for i, view in enumerate(views.globals)} | {"local": views.local}
    described = {kind: view.model_dump(mode="json", exclude={"size"}) for kind, view in kinds.items()}
    return {"multi_crop": views.crops, **described, "mean": list(views.mean), "std": list(views.std)}
