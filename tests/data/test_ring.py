"""Memory used again between loader processes and the trainer: never while somebody looks into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sslctl.data.folder import open_folder
from sslctl.data.loader import Loader
from sslctl.data.ring import Ring, make_ring

MakeImage = Callable[..., np.ndarray]  # the fixture in conftest.py


def test_a_place_isfree_again_when_its_last_tensor_is_gone() -> None:
    places_of = Ring(2, [3, 5], workers=1)
    tasks = places_of.tasks([[(0, i)] for i in range(9)])
    places = [place for place, _ in (next(tasks) for _ in range(8))]
    assert sorted(place for place in places if place is not None) == list(range(6)) and places[6:] == [None, None]
    views = places_of.lend(4)
    assert [tuple(view.shape) for view in views] == [(2, 3, 3, 3), (2, 3, 5, 5)]
    row = views[1][1, 2]  # a view of a view keeps the place
    del views
    assert not places_of.free
    del row
    assert list(places_of.free) == [4] and next(tasks)[0] == 4


def test_a_machine_that_promises_too_little_has_none() -> None:
    assert make_ring(2, [3], workers=1) is not None
    assert make_ring(2, [3], workers=0) is None and make_ring(2, None, workers=1) is None

    assert make_ring(1 << 20, [1 << 14], workers=1) is None, "more than an address space"


def flat(image: np.ndarray, epoch: int, index: int) -> list[Tensor]:
    """Crops of 6 and 4 px that hold the image's number and the epoch."""
    return [torch.full((3, size, size), 10 * epoch + index, dtype=torch.uint8) for size in (6, 4)]


def test_batches_that_are_kept_stay_what_they_are(tmp_path: Path, image: MakeImage) -> None:
    """Some kept for long, most dropped at once, many times around the ring."""
    for i in range(8):
        image(tmp_path / f"{i}.png", i)
    files = open_folder(str(tmp_path), "train")
    settings = {"batch_size": 2, "seed": 0, "start_step": 0, "total_steps": 60, "workers": 2, "sizes": [6, 4]}
    kept = []
    seen = set()
    for step, batch in enumerate(Loader(files, flat, **settings)):  # type: ignore[arg-type]
        seen.add(batch.crops[0].data_ptr())
        if step % 7 == 0:
            kept.append((batch, [10 * e + i for e, i in zip(batch.epoch.tolist(), batch.index.tolist(), strict=True)]))
    assert len(seen) < 30, "memory is used again"
    for batch, expected in kept:
        for view in batch.crops:
            assert view.is_contiguous() and (view == torch.tensor(expected)[:, None, None, None]).all()
