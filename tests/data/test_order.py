"""The order of samples: permutations of seed and epoch, and batches that neither start nor processes change."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from sslctl.data.order import Key, StepKeys, order
from sslctl.errors import SpecError


def keys(n: int = 23, batch: int = 4, start: int = 0, total: int = 13, **more: int) -> list[list[Key]]:
    return list(StepKeys(n, batch_size=batch, seed=7, start_step=start, total_steps=total, **more))


def test_an_order_is_a_permutation_of_seed_and_epoch() -> None:
    first = order(0, 0, 1000)
    assert np.array_equal(np.sort(first), np.arange(1000))
    assert np.array_equal(first, order(0, 0, 1000))
    others = [order(1, 0, 1000), order(0, 1, 1000), order(1, 1, 1000)]
    assert all(np.mean(first == other) < 0.02 for other in others)
    assert np.mean(others[0] == others[1]) < 0.02


def test_the_order_never_changes_between_versions() -> None:
    """Resumed runs rely on these numbers."""
    assert order(0, 0, 8).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]
    assert order(3, 5, 8).tolist() == [5, 0, 6, 3, 4, 1, 2, 7]


def test_an_epoch_visits_every_image_once_and_drops_the_rest() -> None:
    steps = keys()
    assert len(steps) == 13 and all(len(step) == 4 for step in steps)
    for epoch in range(2):
        seen = list(chain(*steps[5 * epoch : 5 * epoch + 5]))
        assert {key[0] for key in seen} == {epoch}
        assert len({key[1] for key in seen}) == 20
        assert [key[1] for key in seen] == order(7, epoch, 23)[:20].tolist()


@pytest.mark.parametrize("start", [0, 1, 4, 5, 6, 12, 13])
def test_a_later_start_gives_the_tail(start: int) -> None:
    assert keys(start=start) == keys()[start:]
    assert len(StepKeys(23, batch_size=4, seed=7, start_step=start, total_steps=13)) == 13 - start


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_the_global_batch(world_size: int) -> None:
    parts = [keys(rank=rank, world_size=world_size) for rank in range(world_size)]
    assert [list(chain(*step)) for step in zip(*parts, strict=True)] == keys()


def test_a_batch_that_cannot_be_shared_is_refused_with_one_that_can() -> None:
    with pytest.raises(SpecError, match="10 images cannot be shared evenly by 4") as caught:
        keys(batch=10, world_size=4)
    assert caught.value.hint == "--batch-size 8"
