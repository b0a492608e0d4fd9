"""Collectives on two real processes, and the identity on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sslctl.errors import SpecError
from sslctl.runtime import distributed

ROOT = Path(__file__).parents[2]
WORLD = 2


def answers(rank: int) -> dict[str, object]:
    """What each collective gives on process ``rank``, from numbers that only it knows."""
    x = torch.tensor([[1.0 + rank, 10.0 * rank]], dtype=torch.float64, requires_grad=True)
    gathered = distributed.gather(x.T)  # (4, 1), from a tensor that is not contiguous
    weight = torch.arange(1.0, 5.0, dtype=torch.float64)[:, None] * (rank + 1)
    (gradient,) = torch.autograd.grad((gathered * weight).sum(), x)
    mean = distributed.mean(x)
    (of_mean,) = torch.autograd.grad(mean.square().sum(), x)

    def refuse() -> None:
        raise SpecError("told by the first", "a hint")

    try:
        distributed.by_first(refuse)
        refused = ""
    except SpecError as e:
        refused = f"{e.message}: {e.hint}"
    return {
        "rank": distributed.rank(),
        "world": distributed.world_size(),
        "collect": distributed.collect({"of": rank}),
        "by_first": distributed.by_first(lambda: f"made by {rank}"),
        "refused": refused,
        "largest": distributed.largest(3 - rank),
        "total": distributed.total(x).tolist(),
        "mean": mean.tolist(),
        "of_mean": of_mean.tolist(),
        "gather": gathered.flatten().tolist(),
        "of_gather": gradient.tolist(),
    }


def test_on_one_process_each_is_the_identity() -> None:
    x = torch.ones(2, 3)
    distributed.join(torch.device("cpu"))  # torchrun did not start this one
    assert (distributed.rank(), distributed.world_size(), distributed.largest(5)) == (0, 1, 5)
    assert distributed.collect("a") == ["a"] and distributed.by_first(lambda: 7) == 7
    assert all(f(x) is x for f in (distributed.total, distributed.gather)) and torch.equal(distributed.mean(x), x)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """The answers of two processes that join by the variables that torchrun sets."""
    folder = tmp_path_factory.mktemp("two")
    env = os.environ | {"PYTHONPATH": str(ROOT), "WORLD_SIZE": str(WORLD), "MASTER_ADDR": "127.0.0.1"}
    env |= {"MASTER_PORT": str(20_000 + os.getpid() % 20_000), "OMP_NUM_THREADS": "1"}
    env |= {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    running = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder / str(rank))], env=env | {"RANK": str(rank)}, stderr=subprocess.PIPE
        )
        for rank in range(WORLD)
    ]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    return [json.loads((folder / str(rank)).read_text()) for rank in range(WORLD)]


def test_two_processes_know_each_other(two: list[dict[str, object]]) -> None:
    for rank, answer in enumerate(two):
        assert (answer["rank"], answer["world"], answer["largest"]) == (rank, 2, 3)
        assert answer["collect"] == [{"of": 0}, {"of": 1}]


def test_what_the_first_does_or_refuses_holds_for_both(two: list[dict[str, object]]) -> None:
    assert [answer["by_first"] for answer in two] == ["made by 0", "made by 0"]
    assert [answer["refused"] for answer in two] == ["told by the first: a hint"] * 2


def test_sums_and_means_have_the_gradient_of_both(two: list[dict[str, object]]) -> None:
    for answer in two:
        assert answer["total"] == [[3.0, 10.0]] and answer["mean"] == [[1.5, 5.0]]
        assert answer["of_mean"] == [[3.0, 10.0]]  # 2 * mean / 2 of its own term and of the other's


def test_gathering_sums_the_gradients_that_both_have_for_a_row(two: list[dict[str, object]]) -> None:
    for rank, answer in enumerate(two):
        assert answer["gather"] == [1.0, 0.0, 2.0, 10.0]
        assert answer["of_gather"] == [[3.0 * (1 + 2 * rank), 3.0 * (2 + 2 * rank)]]  # weights times 1 and times 2


if __name__ == "__main__":
    distributed.join(torch.device("cpu"))
    Path(sys.argv[1]).write_text(json.dumps(answers(distributed.rank())))
    torch.distributed.barrier()  # nobody leaves while another still speaks to it
