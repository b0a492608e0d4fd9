"""Two processes, each with half of the batch, give the loss, the gradient and the state of one with the whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.stubs import StubBackbone

ROOT = Path(__file__).parents[2]
BATCH = 8
STEPS = 3


class Net(StubBackbone):
    """A backbone (B, 3, H, W) -> (B, 8), with or without statistics over the batch."""

    dim = 8

    def __init__(self, norm: bool) -> None:
        super().__init__()
        between = nn.BatchNorm2d(8) if norm else nn.Tanh()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3), between, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 8))

    def pool(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


def measure(name: str, rank: int, processes: int, norm: bool = False) -> dict[str, Tensor]:
    """Losses, the last gradient and all buffers after some steps on this process's share of each batch."""
    from sslctl.layers.batch_norm import share_statistics
    from sslctl.methods import load_method
    from sslctl.methods.base import Context, Views
    from sslctl.runtime import distributed
    from sslctl.schedule import Step
    from sslctl.spec.parsing import check
    from tests.stubs import tiny_vit

    torch.manual_seed(0)
    cls: Any = load_method(name)
    net = tiny_vit() if cls.needs_vit else Net(norm)
    method = cls(check(cls.Params, cls.tiny), net, Context(100, BATCH, classes=3)).double()
    method.train(norm)  # in evaluation, heads with batch norm take its running statistics
    if processes > 1 and cls.shares_norm:
        share_statistics(method, torch.device("cpu"))
    share = slice(rank * BATCH // processes, (rank + 1) * BATCH // processes)
    generator = torch.Generator().manual_seed(1)
    result: dict[str, Tensor] = {}
    for index in range(STEPS):
        sizes = [16, 16, 8]
        crops = [torch.randn(BATCH, 3, s, s, generator=generator, dtype=torch.float64)[share] for s in sizes]
        method.zero_grad()
        images = torch.arange(BATCH)[share]
        loss = method(Views(crops[:2], crops[2:], images, images % 3), Step(index, 3, 1)).loss
        loss.backward()
        result[f"loss {index}"] = distributed.mean(loss.detach())
    for key, p in method.named_parameters():
        if p.grad is not None:
            result[f"gradient {key}"] = distributed.mean(p.grad)
    own = () if cls.shares_norm else ("running_mean", "running_var", "num_batches_tracked")  # each process has its own
    return result | {f"buffer {key}": value.clone() for key, value in method.named_buffers() if not key.endswith(own)}


def cases() -> list[tuple[str, bool]]:
    from sslctl.methods import METHODS

    return [(name, norm) for name in METHODS for norm in (False, True)]


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what each of two gloo processes measured of every method."""
    folder = tmp_path_factory.mktemp("two")
    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    env = os.environ | loopback | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, str(folder)]
    running = [subprocess.Popen([*command, str(rank)], env=env, stderr=subprocess.PIPE, text=True) for rank in range(2)]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    return folder


@pytest.mark.parametrize(("name", "norm"), cases())
def test_two_processes_are_one(name: str, norm: bool, by_two: Path) -> None:
    whole = measure(name, 0, 1, norm)
    assert any(key.startswith("gradient") and value.abs().max() > 0 for key, value in whole.items())
    for rank in range(2):
        part = load_file(by_two / f"{name}-{norm}-{rank}.safetensors")
        assert part.keys() == whole.keys()
        for key, value in whole.items():
            torch.testing.assert_close(part[key], value, rtol=1e-9, atol=1e-12, msg=lambda m, key=key: f"{key}: {m}")


def main(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    torch.distributed.init_process_group("gloo", store, rank=rank, world_size=2)
    for name, norm in cases():
        tensors = {k: v.contiguous() for k, v in measure(name, rank, 2, norm).items()}
        save_file(tensors, folder / f"{name}-{norm}-{rank}.safetensors")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
