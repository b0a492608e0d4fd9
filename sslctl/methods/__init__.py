"""The objectives by name, one line each, with what can be said of them without importing torch."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import SpecError, closest

if TYPE_CHECKING:
    from .base import Method


class Entry(NamedTuple):
    """A line of METHODS: the class, as module:name; its title, paper and kind."""

    where: str
    title: str
    paper: str
    kind: str

    @property
    def year(self) -> int:
        return int(re.findall(r"\b(?:19|20)\d\d\b", self.paper)[0])


_SWAV = "Caron et al. 2020, arXiv 2006.09882"

METHODS = {
    "instdisc": Entry("instdisc:InstDisc", "InstDisc", "Wu et al. 2018, arXiv 1805.01978", "contrastive"),
    "end-to-end": Entry("end_to_end:EndToEnd", "End-to-end", "He et al. 2019, arXiv 1911.05722", "contrastive"),
    "moco-v1": Entry("moco:MoCo", "MoCo v1", "He et al. 2019, arXiv 1911.05722", "contrastive"),
    "moco-v2": Entry("moco:MoCoV2", "MoCo v2", "Chen et al. 2020, arXiv 2003.04297", "contrastive"),
    "moco-v3": Entry("moco_v3:MoCoV3", "MoCo v3", "Chen et al. 2021, arXiv 2104.02057", "contrastive"),
    "simclr": Entry("simclr:SimCLR", "SimCLR", "Chen et al. 2020, arXiv 2002.05709", "contrastive"),
    "nnclr": Entry("nnclr:NNCLR", "NNCLR", "Dwibedi et al. 2021, arXiv 2104.14548", "contrastive"),
    "deepcluster-v2": Entry("deepcluster_v2:DeepClusterV2", "DeepCluster-v2", _SWAV, "clustering"),
    "swav": Entry("swav:SwAV", "SwAV", _SWAV, "clustering"),
    "byol": Entry("byol:BYOL", "BYOL", "Grill et al. 2020, arXiv 2006.07733", "without negatives"),
    "simsiam": Entry("simsiam:SimSiam", "SimSiam", "Chen and He 2020, arXiv 2011.10566", "without negatives"),
    "barlow-twins": Entry(
        "barlow_twins:BarlowTwins", "Barlow Twins", "Zbontar et al. 2021, arXiv 2103.03230", "without negatives"
    ),
    "vicreg": Entry("vicreg:VICReg", "VICReg", "Bardes et al. 2021, arXiv 2105.04906", "without negatives"),
    "dino": Entry("dino:DINO", "DINO", "Caron et al. 2021, arXiv 2104.14294", "self-distillation"),
    "mae": Entry("mae:MAE", "MAE", "He et al. 2021, arXiv 2111.06377", "masked"),
    "rotnet": Entry("rotnet:RotNet", "RotNet", "Gidaris et al. 2018, arXiv 1803.07728", "pretext"),
    "jigsaw": Entry("jigsaw:Jigsaw", "Jigsaw", "Noroozi and Favaro 2016, arXiv 1603.09246", "pretext"),
    "cpc": Entry("cpc:CPC", "CPC", "Oord et al. 2018, arXiv 1807.03748", "pretext"),
    "supervised": Entry("supervised:Supervised", "Supervised", "Goyal et al. 2017, arXiv 1706.02677", "supervised"),
}


FOREIGN_VIEWS = "simclr"
"""The method whose views images get where an encoder comes from no run of ours."""


def canonical(name: str) -> str:
    """Return the name in METHODS that is meant, whatever its case, hyphens and underscores; else ``name`` itself."""
    return {_bare(known): known for known in METHODS}.get(_bare(name), name)


def load_method(name: str) -> type[Method[Any]]:
    """Return the class of the objective ``name``. Raises SpecError, with the nearest name, for an unknown one."""
    if name not in METHODS:
        near = closest(name, list(METHODS))
        raise SpecError(f"method '{name}': no such method{near}", f"one of {', '.join(METHODS)}")
    module, _, cls = METHODS[name].where.partition(":")
    method: type[Method[Any]] = getattr(import_module(f".{module}", __name__), cls)
    return method


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
