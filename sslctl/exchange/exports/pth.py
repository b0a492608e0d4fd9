"""The one place that writes a pickle: tensors by name, for libraries that read nothing else."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...files import write_atomically


def write_pth(path: Path, state: Mapping[str, Tensor], **beside: Any) -> None:
    """``torch.save`` of plain tensors, which ``torch.load(path, weights_only=True)`` reads.

    With plain values ``beside`` them the file is {"model": state, ...}. Raises MachineError where the disk refuses.
    """
    plain = {name: value.detach().cpu().clone() for name, value in state.items()}  # no view of something larger
    buffer = io.BytesIO()
    torch.save({"model": plain, **beside} if beside else plain, buffer)
    write_atomically(path, buffer.getvalue())
