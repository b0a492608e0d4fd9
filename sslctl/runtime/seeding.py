"""Random numbers that are functions of the step and the image, so that no generator's state is ever saved."""

from __future__ import annotations

import torch
from torch import Tensor

from ..schedule import Step
from . import distributed


def seed_step(seed: int, index: int) -> None:
    """Seed torch for step ``index`` of a run: dropout and masks are a function of the step and the process."""
    torch.manual_seed((seed * 1_000_003 + index) * 4099 + distributed.rank())


def generator(step: Step, device: torch.device | str = "cpu") -> torch.Generator:
    """Return what an objective draws from at a step of a run; the same on every process."""
    return torch.Generator(device).manual_seed(step.seed * 1_000_003 + step.index)


def shuffle(images: int, step: Step, device: torch.device) -> Tensor:
    """Draw an order of the images of all processes, ``images`` on each, for the step; the same on every process."""
    return torch.randperm(images * distributed.world_size(), generator=generator(step, device), device=device)


_GOLDEN = -0x61C8864680B583EB  # 2^64 / golden ratio as int64, odd: consecutive counters lie far apart


def uniforms(step: Step, index: Tensor, n: int, stream: int = 0) -> Tensor:
    """Draw ``n`` numbers, uniform in [0, 1), for each image ``index`` (B,) of the dataset at a step: (B, n), float64.

    ``stream`` tells one use from another. They depend on (seed, step, image, stream) alone, so neither the batch, nor
    its parts, nor the processes change them. Computed where ``index`` lies. splitmix64 (Steele, Lea, Flood 2014), of
    the key folded in word by word, as in ``views.keyed``.
    """
    state = torch.zeros_like(index)
    for word in (step.seed, step.index, index, stream):
        state = _mix(state * 3 + _GOLDEN + word)
    counters = torch.arange(1, n + 1, device=index.device) * _GOLDEN
    bits = _mix(state[:, None] + counters)
    return _shifted(bits, 11).double() * 2.0**-53


def _mix(x: Tensor) -> Tensor:
    """Apply splitmix64's finaliser to int64, whose products wrap around."""
    x = (x ^ _shifted(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shifted(x, 27)) * -0x6B2FB644ECCEEE15
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shift to the right without the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
