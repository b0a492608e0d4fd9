"""A run put together: what the loop needs, made from a spec by build.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..backbones.compiling import Compiled
from ..data.loader import Loader
from ..data.source import Source
from ..methods.base import Method
from ..runs.meta import Meta
from ..schedule import Schedule, Step
from ..spec.schema import Spec
from ..views.augment import Augment


@dataclass
class Training:
    """Everything a run needs; build.py makes it from a spec."""

    spec: Spec
    source: Source
    method: Method[Any]
    model: nn.Module  # the method, or what wraps it on several processes
    optimizer: torch.optim.Optimizer
    augment: Augment
    loader: Callable[..., Loader]  # start_step is still to say
    lr: Schedule
    weight_decay: Schedule
    device: torch.device
    dtype: torch.dtype
    compiled: Compiled
    scaler: torch.amp.GradScaler
    total: int
    per_epoch: int
    log_every: int
    checkpoint_every: int
    meta: Meta
    probe: Callable[[Step], dict[str, float]] | None = None  # scores the encoder; must leave everything as it is
    probe_every: int = 1
