"""Seeds that are functions of the step, so that no generator's state is ever saved."""

from __future__ import annotations

import torch
from torch import Tensor

from ..schedule import Step
from . import distributed


def seed_step(seed: int, index: int) -> None:
    """Seed torch for step ``index`` of a run: dropout and masks are a function of the step and the process."""
    torch.manual_seed((seed * 1_000_003 + index) * 4099 + distributed.rank())


def generator(step: Step, device: torch.device | str = "cpu") -> torch.Generator:
    """What an objective draws from at a step of a run; the same on every process."""
    return torch.Generator(device).manual_seed(step.seed * 1_000_003 + step.index)


def shuffle(images: int, step: Step, device: torch.device) -> Tensor:
    """An order of the images of all processes, so many on each, drawn for the step on the device; alike everywhere."""
    return torch.randperm(images * distributed.world_size(), generator=generator(step, device), device=device)
