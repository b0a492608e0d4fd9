"""Seeds that are functions of the step, so that no generator's state is ever saved."""

from __future__ import annotations

import torch

from . import distributed


def seed_step(seed: int, index: int) -> None:
    """Seed torch for step ``index`` of a run: dropout and masks are a function of the step and the process."""
    torch.manual_seed((seed * 1_000_003 + index) * 4099 + distributed.rank())
