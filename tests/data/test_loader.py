"""The loader: the same batches whatever workers, start or memory; bad images replaced; dead workers named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sslctl.data.folder import open_folder
from sslctl.data.in_memory import in_memory
from sslctl.data.loader import Loader
from sslctl.data.order import order
from sslctl.data.source import ArraySource, FileSource
from sslctl.errors import DataError

from .conftest import MakeImage
from .loading import STEPS, N, corners, loader, same


def test_batches_hold_the_crops_of_their_images_in_order(files: FileSource) -> None:
    batches = list(loader(files))
    assert len(batches) == STEPS and loader(files).steps_per_epoch == 6
    for step, batch in enumerate(batches):
        epoch, position = divmod(step, 6)
        assert batch.index.tolist() == order(5, epoch, N)[4 * position : 4 * position + 4].tolist()
        assert batch.epoch.tolist() == [epoch] * 4 and batch.images is None and batch.bad == []
        assert [tuple(view.shape) for view in batch.crops] == [(4, 3, 4, 4), (4, 3, 4, 4), (4, 3, 3, 3)]
        assert files.labels is not None and batch.labels is not None
        assert batch.labels.tolist() == files.labels[batch.index].tolist()
        for row, index in enumerate(batch.index.tolist()):
            expected = corners(files.read(index), epoch, index)
            assert all(torch.equal(view[row], crop) for view, crop in zip(batch.crops, expected, strict=True))
            assert batch.crops[0].dtype == torch.uint8


@pytest.mark.parametrize(("workers", "sizes"), [(1, None), (2, [4, 4, 3]), (3, None)])
def test_workers_change_nothing(files: FileSource, workers: int, sizes: list[int] | None) -> None:
    (Path(files.root) / "c1/04.png").write_bytes(b"")  # among them a replaced image
    alone, together = list(loader(files)), list(loader(files, workers, sizes=sizes))
    assert all(map(same, alone, together)) and len(together) == STEPS
    assert any(batch.bad for batch in alone)


@pytest.mark.parametrize(("start", "workers"), [(1, 0), (5, 2), (6, 2), (9, 1), (14, 2)])
def test_a_later_start_is_the_tail_of_the_whole(files: FileSource, start: int, workers: int) -> None:
    tail = list(loader(files, workers, start))
    assert len(tail) == STEPS - start and all(map(same, tail, list(loader(files))[start:]))


def test_processes_share_the_batch(files: FileSource) -> None:
    parts = [list(loader(files, rank=rank, world_size=2)) for rank in range(2)]
    for whole, first, second in zip(loader(files), *parts, strict=True):
        assert torch.equal(torch.cat([first.index, second.index]), whole.index)
        assert all(
            torch.equal(torch.cat([a, b]), c) for a, b, c in zip(first.crops, second.crops, whole.crops, strict=True)
        )


def test_an_iterator_can_be_had_again(files: FileSource) -> None:
    same_loader = loader(files, 1)
    assert all(map(same, list(same_loader), list(same_loader)))


def test_torchs_random_state_stays(files: FileSource) -> None:
    before = torch.get_rng_state()
    list(loader(files, 1))
    list(loader(files, 0))
    assert torch.equal(before, torch.get_rng_state())


def test_an_unreadable_image_is_replaced_by_the_next_and_reported(files: FileSource) -> None:
    assert files.labels is not None
    for i in (7, 8, N - 1):
        Path(files.path(i)).write_bytes(b"<html>")
    reason = "not an image: 0 bytes"
    Path(files.path(8)).write_bytes(b"")
    seen: dict[int, str] = {}
    for batch in loader(files):
        for row, index in enumerate(batch.index.tolist()):
            used = {7: 9, 8: 9, N - 1: 0}.get(index, index)
            expected = corners(files.read(used), int(batch.epoch[row]), index)
            assert torch.equal(batch.crops[0][row], expected[0])
            assert batch.labels is not None and batch.labels[row] == files.labels[used]
        if 7 in batch.index:
            assert [i for i, _ in batch.bad if i in (7, 8)][:2] == [7, 8] or 8 in batch.index
        seen |= dict(batch.bad)
    assert set(seen) == {7, 8, N - 1} and seen[8] == reason


@pytest.mark.parametrize("workers", [0, 1])
def test_a_strict_run_stops_at_the_first(files: FileSource, workers: int) -> None:
    Path(files.path(3)).write_bytes(b"")
    with pytest.raises(DataError, match="not an image: 0 bytes") as caught:
        list(loader(files, workers, fail_on_bad=True))
    assert files.item_name(3) in caught.value.message


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_readable_is_said_plainly(files: FileSource, workers: int) -> None:
    for i in range(N):
        os.remove(files.path(i))
    with pytest.raises(DataError, match=f"none of the {N} images .* {N}x cannot be opened: No such file") as caught:
        list(loader(files, workers))
    assert "Traceback" not in caught.value.message and caught.value.hint


def test_arrays_come_from_memory(files: FileSource, tmp_path: Path, image: MakeImage) -> None:
    """Held in memory, the same images and labels come in the same order, bad ones replaced alike."""
    for i in range(N):
        image(tmp_path / f"c{i % 3}" / f"{i:02}.png", i)
    for i in (7, 8, N - 1):
        Path(files.path(i)).write_bytes(b"")
    held = in_memory(files)
    assert held.array is not None and len(held.bad) == 3
    from_memory = list(Loader(held, None, batch_size=4, seed=5, start_step=3, total_steps=STEPS, workers=2))
    for batch, other in zip(from_memory, loader(files, start=3), strict=True):
        assert batch.images is not None and batch.images.shape == (4, 3, 6, 8) and batch.crops == []
        assert torch.equal(batch.index, other.index) and torch.equal(batch.epoch, other.epoch)
        assert batch.labels is not None and other.labels is not None and torch.equal(batch.labels, other.labels)
        assert batch.bad == other.bad
        for row in range(4):
            crops = corners(batch.images[row].permute(1, 2, 0).numpy(), int(batch.epoch[row]), int(batch.index[row]))
            assert torch.equal(other.crops[0][row], crops[0])


def test_arrays_without_labels() -> None:
    source = ArraySource("set", np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), dtype=np.uint8))
    batch = next(iter(loader(source)))
    assert batch.labels is None and batch.images is not None
    assert np.array_equal(batch.images[2].permute(1, 2, 0), source.array[batch.index[2]])


def test_too_few_images_for_a_batch(files: FileSource) -> None:
    with pytest.raises(DataError, match=f"{N} images, fewer than one batch of 27") as caught:
        loader(files, batch_size=27)
    assert caught.value.hint == f"--batch-size {N} or less"
    with pytest.raises(ValueError, match="geometric"):
        Loader(files, None, batch_size=4, seed=0, start_step=0, total_steps=1, workers=0)


def test_names_that_are_no_text_reach_the_workers(tmp_path: Path, image: MakeImage) -> None:
    for i in range(8):
        image(os.fsencode(tmp_path) + b"/caf\xe9-%d.png" % i, i)
    source = open_folder(str(tmp_path), "train")
    assert sum(len(batch.index) for batch in loader(source, 1)) == 4 * STEPS
