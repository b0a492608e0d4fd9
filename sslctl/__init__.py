"""Self-supervised learning of image encoders; importing this imports nothing heavy. ``__all__`` is the whole face."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    CheckpointError,
    DataError,
    DivergedError,
    MachineError,
    SpecError,
    SslctlError,
    Stopped,
)
from .version import __version__ as __version__

__all__ = [
    "CheckpointError",
    "DataError",
    "DivergedError",
    "Encoder",
    "MachineError",
    "SpecError",
    "SslctlError",
    "Stopped",
    "attn_map",
    "bench",
    "compare",
    "data_info",
    "data_pack",
    "describe_method",
    "embed",
    "export",
    "find_batch",
    "finetune",
    "import_weights",
    "inspect",
    "knn",
    "linear_eval",
    "list_methods",
    "load",
    "neighbours",
    "pca",
    "plan",
    "pretrain",
    "preview",
    "projection",
    "rank",
    "report",
]

_MODULES = {
    "bench": ("bench", "find_batch"),
    "data": ("data_info", "data_pack"),
    "embed": ("embed",),
    "encoders": ("Encoder", "load"),
    "exchange": ("export", "import_weights", "inspect"),
    "finetune": ("finetune",),
    "knn": ("knn",),
    "linear": ("linear_eval",),
    "maps": ("attn_map", "pca"),
    "methods": ("describe_method", "list_methods"),
    "pretrain": ("plan", "pretrain", "preview"),
    "rank": ("rank",),
    "report": ("compare", "report"),
    "similarity": ("neighbours", "projection"),
}
_WHERE = {name: module for module, names in _MODULES.items() for name in names}

if TYPE_CHECKING:
    from .tasks.bench import bench, find_batch
    from .tasks.data import data_info, data_pack
    from .tasks.embed import embed
    from .tasks.encoders import Encoder, load
    from .tasks.exchange import export, import_weights, inspect
    from .tasks.finetune import finetune
    from .tasks.knn import knn
    from .tasks.linear import linear_eval
    from .tasks.maps import attn_map, pca
    from .tasks.methods import describe_method, list_methods
    from .tasks.pretrain import plan, pretrain, preview
    from .tasks.rank import rank
    from .tasks.report import compare, report
    from .tasks.similarity import neighbours, projection


def __getattr__(name: str) -> Any:
    """Import what ``__all__`` names when it is first used."""
    if name not in _WHERE:
        raise AttributeError(f"module 'sslctl' has no attribute '{name}'")
    found = globals()[name] = getattr(import_module(f".tasks.{_WHERE[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
