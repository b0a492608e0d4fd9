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

ROOT = Path(__file__).parents[2]
SMALL: dict[str, dict[str, Any]] = {
    "dino": {"prototypes": 12, "hidden": 16, "bottleneck": 8},
    "swav": {"prototypes": 7, "hidden": 16, "out": 8, "queue": 8, "queue_from_epoch": 0},
    "simclr": {"out": 8},
}
BATCH = 8
STEPS = 3


class Net(nn.Module):
    """A backbone without statistics over the batch: (B, 3, H, W) -> (B, 8)."""

    dim = 8

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 8))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


def measure(name: str, rank: int, processes: int) -> dict[str, Tensor]:
    """Losses, the last gradient and all buffers after some steps on this process's share of each batch."""
    from sslctl import distributed
    from sslctl.method import Facts, Views
    from sslctl.methods import load_method
    from sslctl.schedule import Step

    torch.manual_seed(0)
    cls: Any = load_method(name)
    method = cls(cls.Params(**SMALL.get(name, {})), Net(), Facts(100, BATCH)).double()
    method.eval()  # batch norm with its running statistics: those of a batch would need SyncBatchNorm, which is CUDA's
    share = slice(rank * BATCH // processes, (rank + 1) * BATCH // processes)
    generator = torch.Generator().manual_seed(1)
    result: dict[str, Tensor] = {}
    for index in range(STEPS):
        sizes = [12, 12, 8]
        crops = [torch.randn(BATCH, 3, s, s, generator=generator, dtype=torch.float64)[share] for s in sizes]
        method.zero_grad()
        loss = method(Views(crops[:2], crops[2:], torch.arange(BATCH)[share]), Step(index, 6, 3)).loss
        loss.backward()
        result[f"loss {index}"] = distributed.mean(loss.detach())
    for key, p in method.named_parameters():
        if p.grad is not None:
            result[f"gradient {key}"] = distributed.mean(p.grad)
    return result | {f"buffer {key}": value.clone() for key, value in method.named_buffers()}


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


def names() -> list[str]:
    from sslctl.methods import METHODS

    return list(METHODS)


@pytest.mark.parametrize("name", names())
def test_two_processes_are_one(name: str, by_two: Path) -> None:
    whole = measure(name, 0, 1)
    assert any(key.startswith("gradient") and value.abs().max() > 0 for key, value in whole.items())
    for rank in range(2):
        part = load_file(by_two / f"{name}-{rank}.safetensors")
        assert part.keys() == whole.keys()
        for key, value in whole.items():
            torch.testing.assert_close(part[key], value, rtol=1e-9, atol=1e-12, msg=lambda m, key=key: f"{key}: {m}")


def main(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    torch.distributed.init_process_group("gloo", store, rank=rank, world_size=2)
    for name in names():
        save_file({k: v.contiguous() for k, v in measure(name, rank, 2).items()}, folder / f"{name}-{rank}.safetensors")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
