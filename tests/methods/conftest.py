"""What tests of objectives share: tiny backbones, random views, and the engine's own step without its surroundings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sslctl.engine.optimizers import build_optimizer
from sslctl.methods.base import Method, Output, Views
from sslctl.schedule import Schedule, Step, constant
from sslctl.spec.schema import OptimSpec

from ..stubs import StubBackbone


class Net(StubBackbone):
    """The smallest backbone with batch norm, (B, 3, H, W) -> (B, 8) for any H and W."""

    dim = 8

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def pool(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


@pytest.fixture(autouse=True)
def same_weights() -> None:
    """Whatever ran before, a test begins with the same random numbers."""
    torch.manual_seed(0)


class Trainer:
    """A method under the engine's ``take_step``: the same order of schedules, gradients, clipping and hooks."""

    def __init__(self, method: Method[Any], spec: OptimSpec, lr: Schedule, decay: Schedule, half: bool = False) -> None:
        self.training: Any = SimpleNamespace(
            spec=SimpleNamespace(optim=spec),
            method=method.train(),
            model=method,
            optimizer=build_optimizer(spec, method),
            lr=lr,
            weight_decay=decay,
            device=torch.device("cpu"),
            dtype=torch.bfloat16 if half else torch.float32,
            scaler=torch.amp.GradScaler("cpu", enabled=False),
        )

    def step(self, views: Views, step: Step) -> Output:
        from sslctl.engine.loop import take_step

        return take_step(self.training, views, step)


@pytest.fixture
def trainer() -> Callable[..., Trainer]:
    def make(
        method: Method[Any],
        spec: OptimSpec | None = None,
        lr: Schedule | None = None,
        decay: Schedule | None = None,
        half: bool = False,
    ) -> Trainer:
        spec = spec or OptimSpec(name="sgd")
        return Trainer(method, spec, lr or constant(0.05), decay or constant(0.0), half)

    return make


@pytest.fixture
def net() -> Callable[[], Net]:
    return Net


@pytest.fixture
def random_views() -> Callable[..., Views]:
    """Views, (count, size) of each kind, of random images of three classes; those of an image look alike."""

    def make(globals: tuple[int, int], locals: tuple[int, int] = (0, 0), images: int = 6, seed: int = 0) -> Views:
        g = torch.Generator().manual_seed(seed)
        base = torch.randn(images, 3, 1, 1, generator=g)

        def crops(count: int, size: int) -> list[Tensor]:
            return [base + 0.5 * torch.randn(images, 3, size, size, generator=g) for _ in range(count)]

        index = torch.arange(images)
        return Views(crops(*globals), crops(*locals), index, index % 3)

    return make


@pytest.fixture
def golden() -> Callable[[str], dict[str, Tensor]]:
    """The tensors of a golden case, by its name."""
    folder = Path(__file__).parents[1] / "golden"
    return lambda name: load_file(folder / f"{name}.safetensors")
