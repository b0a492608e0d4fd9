"""The objectives by name, one line each, with what can be said of them without importing torch."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import SpecError, closest

if TYPE_CHECKING:
    from ..method import Method


class Entry(NamedTuple):
    """A line of METHODS: the class, as module:name; its title, paper and kind."""

    where: str
    title: str
    paper: str
    kind: str

    @property
    def year(self) -> int:
        return int(re.findall(r"\b(?:19|20)\d\d\b", self.paper)[0])


METHODS = {
    "dino": Entry("dino:DINO", "DINO", "Caron et al. 2021, arXiv 2104.14294", "self-distillation"),
    "simclr": Entry("simclr:SimCLR", "SimCLR", "Chen et al. 2020, arXiv 2002.05709", "contrastive"),
    "swav": Entry("swav:SwAV", "SwAV", "Caron et al. 2020, arXiv 2006.09882", "clustering"),
}


def canonical(name: str) -> str:
    """The name in METHODS that is meant, whatever its case, hyphens and underscores; else ``name`` itself."""
    return {_bare(known): known for known in METHODS}.get(_bare(name), name)


def load_method(name: str) -> type[Method[Any]]:
    """The class of the objective called ``name``; SpecError, with the nearest name, where there is none."""
    if name not in METHODS:
        near = closest(name, list(METHODS))
        raise SpecError(f"method '{name}': no such method{near}", f"one of {', '.join(METHODS)}")
    module, _, cls = METHODS[name].where.partition(":")
    method: type[Method[Any]] = getattr(import_module(f".{module}", __name__), cls)
    return method


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
