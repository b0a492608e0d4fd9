"""The objectives by name, one line each; loading one imports torch, this table does not."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import SpecError, closest

if TYPE_CHECKING:
    from ..method import Method

METHODS = {
    "dino": "dino:DINO",
    "simclr": "simclr:SimCLR",
    "swav": "swav:SwAV",
}


def load_method(name: str) -> type[Method[Any]]:
    """The class of the objective called ``name``; SpecError, with the nearest name, where there is none."""
    if name not in METHODS:
        near = closest(name, list(METHODS))
        raise SpecError(f"method '{name}': no such method{near}", f"one of {', '.join(METHODS)}")
    module, _, cls = METHODS[name].partition(":")
    method: type[Method[Any]] = getattr(import_module(f".{module}", __name__), cls)
    return method
