"""torch.compile and CUDA graphs: when networks are compiled by default, and how to run compiled ones as written."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn

from . import Backbone

Compiled = bool | Literal["graphs"]

WORTH_COMPILING = 2000
"""Steps from which compiling, which takes a minute or two, is worth it."""
MOST_VARIANTS = 128
"""Compiled forms of ``Backbone.forward``: one for each network, size of view and number of images."""


def choose_compile(choice: Compiled | None, device: torch.device, steps: int) -> Compiled:
    """Return ``choice``, or whether compiling pays: on CUDA with Triton and a C compiler, for a run of many steps.

    A CPU gains next to nothing by it (docs/benchmarks.md).
    """
    if choice is not None:
        return choice
    if device.type != "cuda" or steps < WORTH_COMPILING:
        return False
    has_c = any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang")))
    return has_c and importlib.util.find_spec("triton") is not None


def compile_backbones(method: nn.Module, compiled: Compiled = True) -> None:
    """torch.compile every backbone in place, once for each size of view; names of weights stay as they are.

    "graphs": their kernels are launched as CUDA graphs, whose outputs live until ``method`` is next called. What the
    compiler fails at runs as written, with torch's warning: a broken toolchain must not end a run.
    """
    config: Any = torch._dynamo.config
    config.suppress_errors = True
    # Networks of every run in the process count together. Past the limit a pass would run as written, and beside
    # compiled passes of the same network, batch norm then refuses the backward pass.
    config.recompile_limit = max(config.recompile_limit, MOST_VARIANTS)
    for module in method.modules():
        if isinstance(module, Backbone):
            module.compile(dynamic=False, mode="reduce-overhead" if compiled == "graphs" else None)
    if compiled == "graphs":
        method.register_forward_pre_hook(lambda *_: new_graphs())


def new_graphs() -> None:
    """Mark the outputs of earlier CUDA graphs as no longer needed."""
    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Run networks as written within, compiled or not: each new shape would cost a minute."""
    if "torch._dynamo" not in sys.modules:  # nothing was, and asking torch would load its compiler
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
