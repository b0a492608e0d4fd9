"""torch.compile and CUDA graphs: where they are taken by themselves, and where compiled networks run as written."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Literal

import torch
from torch import nn

from . import Backbone

Compiled = bool | Literal["graphs"]

WORTH_COMPILING = 2000
"""Steps of a run from which on compiling, which takes a minute or two, is taken to pay."""


def choose_compile(asked: Compiled | None, device: torch.device, steps: int) -> Compiled:
    """``asked``, or whether networks are best compiled: on CUDA with Triton and a C compiler, for a run of many steps.

    A CPU gains next to nothing by it (docs/benchmarks.md).
    """
    if asked is not None:
        return asked
    if device.type != "cuda" or steps < WORTH_COMPILING:
        return False
    has_c = any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang")))
    return has_c and importlib.util.find_spec("triton") is not None


def compile_backbones(method: nn.Module, compiled: Compiled = True) -> None:
    """torch.compile every backbone in place, once for each size of view; names of weights stay as they are.

    "graphs": their kernels are launched as CUDA graphs, whose outputs live until ``method`` is next called. What the
    compiler fails at runs as written, with torch's warning: a broken toolchain must not end a run.
    """
    torch._dynamo.config.suppress_errors = True
    for module in method.modules():
        if isinstance(module, Backbone):
            module.compile(dynamic=False, mode="reduce-overhead" if compiled == "graphs" else None)
    if compiled == "graphs":
        method.register_forward_pre_hook(lambda *_: new_graphs())


def new_graphs() -> None:
    """What CUDA graphs gave so far is not needed any more."""
    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """For a while networks run as written, whether they were compiled or not: each new shape would cost a minute."""
    if "torch._dynamo" not in sys.modules:  # nothing was, and asking torch would load its compiler
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
