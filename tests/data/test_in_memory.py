"""Holding files in memory: when it happens by itself, and that it changes nothing but the speed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sslctl.data.decode import BadImage, Pixels
from sslctl.data.folder import open_folder
from sslctl.data.in_memory import HeldSource, in_batches, in_memory
from sslctl.data.source import ArraySource, FileSource, Source
from sslctl.errors import DataError, MachineError

from .conftest import MakeImage


@pytest.fixture
def equal(tmp_path: Path, image: MakeImage) -> Source:
    for i in range(40):
        image(tmp_path / f"c{i % 4}/{i:02}.png", i)
    return open_folder(str(tmp_path), "train")


def test_images_of_one_size_are_held_as_they_are(equal: Source) -> None:
    held = in_memory(equal)
    assert isinstance(held, HeldSource) and held.array.shape == (40, 6, 8, 3)
    assert held.fingerprint() == equal.fingerprint() and held.classes == equal.classes
    assert np.array_equal(held.labels, equal.labels) and held.labels is not None
    for i in range(40):
        assert np.array_equal(held.read(i), equal.read(i)) and held.item_name(i) == equal.item_name(i)
    part, expected = held.take(np.array([30, 2])), equal.take(np.array([30, 2]))
    assert np.array_equal(part.array[0], equal.read(30)) and part.fingerprint() == expected.fingerprint()
    assert part.item_name(1) == equal.item_name(2)


def test_unreadable_images_keep_their_place(equal: Source, tmp_path: Path) -> None:
    (tmp_path / "c1/05.png").write_bytes(b"")
    position = next(i for i in range(40) if equal.item_name(i).endswith("c1/05.png"))
    held = in_memory(equal)
    assert held.bad == {position: "not an image: 0 bytes"} and len(held) == 40
    assert held.array is not None and not held.array[position].any()
    with pytest.raises(BadImage, match=r"c1/05\.png: not an image: 0 bytes"):
        held.read(position)
    assert held.take(np.array([0, position])).bad == {1: "not an image: 0 bytes"}
    assert held.take(np.array([0, 1])).bad == {}


@pytest.mark.parametrize("odd", [0, 17, 39])
def test_images_of_several_sizes_stay_files(equal: Source, tmp_path: Path, image: MakeImage, odd: int) -> None:
    image(tmp_path / f"c{odd % 4}/{odd:02}.png", odd, (9, 6))
    assert in_memory(equal) is equal
    with pytest.raises(DataError, match="several sizes") as caught:
        in_memory(equal, True)
    assert "9x6" in caught.value.message and "8x6" in caught.value.message


def test_large_sets_stay_files_unless_wanted(equal: Source) -> None:
    pixels = 40 * 8 * 6 * 3
    assert in_memory(equal, limit=pixels - 1) is equal
    assert isinstance(in_memory(equal, True, limit=pixels - 1), HeldSource)
    assert isinstance(in_memory(equal, limit=pixels), HeldSource)
    assert in_memory(equal, False) is equal


class Endless(FileSource):
    """More images than an address space has room for, all the same."""

    def __len__(self) -> int:
        return 1 << 48

    def read(self, i: int) -> Pixels:
        return np.zeros((6, 8, 3), np.uint8)


def test_a_set_that_does_not_fit() -> None:
    with pytest.raises(MachineError, match="does not fit into memory") as caught:
        in_memory(Endless("endless", "", []), True)
    assert caught.value.exit_code == 5


class HeadersOnly(FileSource):
    """Files that must not be decoded."""

    def read(self, i: int) -> Pixels:
        raise AssertionError("decoded")


def test_deciding_reads_headers_only(tmp_path: Path, image: MakeImage) -> None:
    for i in range(3):
        image(tmp_path / f"{i}.png", i, (8 + i % 2, 6))
    files = HeadersOnly("set", str(tmp_path), ["0.png", "1.png", "2.png"])
    assert in_memory(files) is files


def test_nothing_readable(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"" if i else b"<html>")
    source = open_folder(str(tmp_path), "train")
    with pytest.raises(DataError, match="none of the 3 images .* can be read: 2x not an image: 0 bytes, 1x not"):
        in_memory(source, True)


@pytest.mark.parametrize(("side", "whole"), [(32, True), (80, True), (96, False)])
def test_a_cpu_takes_small_images_alone_in_whole_batches(side: int, whole: bool) -> None:
    source = ArraySource("set", np.zeros((4, side, side, 3), np.uint8))
    assert in_batches(source, torch.device("cpu")) is whole and in_batches(source, torch.device("meta"))
