"""Packs as sets of images: names, labels, crops and memory as of the files; a damaged pack is refused."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sslctl.data import open_source
from sslctl.data.folder import open_folder
from sslctl.data.in_memory import HeldSource, in_memory
from sslctl.data.loader import Loader
from sslctl.data.pack import PackSource, open_pack
from sslctl.data.packing import write_pack
from sslctl.data.source import FileSource
from sslctl.errors import DataError
from sslctl.views.augment import Augment
from sslctl.views.recipe import IMAGENET_MEAN, IMAGENET_STD, ViewPlan, ViewSpec

MakeImage = Callable[..., np.ndarray]  # the fixture in conftest.py


@pytest.fixture
def files(tmp_path: Path, image: MakeImage) -> FileSource:
    for i in range(18):
        image(tmp_path / "set" / f"c{i % 3}" / f"{i:02}.png", i, (30 + i % 5, 40 - i % 7))
    return open_folder(str(tmp_path / "set"), "train")


def packed(files: FileSource, path: Path, size: int = 64, **more: bool) -> PackSource:
    write_pack(files, path, size, **more)
    source = open_source(str(path))
    assert isinstance(source, PackSource)
    return source


def test_training_sees_the_same_crops_from_a_pack_as_from_its_folder(files: FileSource, tmp_path: Path) -> None:
    pack = packed(files, tmp_path / "a.pack")
    augment = Augment(ViewPlan((ViewSpec(size=24),) * 2, (ViewSpec(size=12),), IMAGENET_MEAN, IMAGENET_STD), 3)
    settings = {"batch_size": 6, "seed": 1, "start_step": 0, "total_steps": 4, "sizes": [24, 24, 12]}
    both = [Loader(source, augment.geometric, workers=n, **settings) for source, n in ((files, 0), (pack, 1))]  # type: ignore[arg-type]
    for one, other in zip(*both, strict=True):
        assert torch.equal(one.index, other.index) and all(map(torch.equal, one.crops, other.crops))
        assert one.labels is not None and other.labels is not None and torch.equal(one.labels, other.labels)


def test_packs_of_small_equal_images_are_held_in_memory(tmp_path: Path, image: MakeImage) -> None:
    for i in range(12):
        image(tmp_path / f"set/{i:02}.png", i)
    pack = packed(open_folder(str(tmp_path / "set"), "train"), tmp_path / "a.pack")
    held = in_memory(pack)
    assert isinstance(held, HeldSource) and np.array_equal(held.array[7], pack.read(7))
    assert held.fingerprint() == pack.fingerprint() and held.item_name(7) == pack.item_name(7)


def test_a_process_that_gets_a_pack_maps_the_file_itself(files: FileSource, tmp_path: Path) -> None:
    pack = packed(files, tmp_path / "a.pack")
    pack.read(0)
    sent = pickle.dumps(pack)
    assert len(sent) < 6000 < 18 * 30 * 34 * 3
    assert np.array_equal(pickle.loads(sent).read(11), files.read(11))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_what_is_cut_off_is_no_pack(files: FileSource, tmp_path: Path, share: float) -> None:
    write_pack(files, tmp_path / "a.pack", 64)
    whole = (tmp_path / "a.pack").read_bytes()
    (tmp_path / "b.pack").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=r"b\.pack is no whole pack") as caught:
        open_source(str(tmp_path / "b.pack"))
    assert "sslctl data pack" in caught.value.hint


def test_tables_that_point_elsewhere_are_refused(files: FileSource, tmp_path: Path) -> None:
    path = tmp_path / "a.pack"
    write_pack(files, path, 64)
    good = path.read_bytes()
    (length,) = struct.unpack("<Q", good[:8])
    header = json.loads(good[8 : 8 + length])

    def with_table(name: str, value: int) -> bytes:
        start = 8 + length + header[name]["data_offsets"][0]
        return good[:start] + struct.pack("<q", value) + good[start + 8 :]

    for name, value in (("offsets", 10**9), ("offsets", -5), ("labels", 3), ("labels", -1), ("sizes", 1 << 20)):
        path.write_bytes(with_table(name, value))
        with pytest.raises(DataError, match="is no whole pack"):
            open_pack(str(path))
    for change in ({"format": "other"}, {"classes": "[]"}):
        other = json.dumps(header | {"__metadata__": header["__metadata__"] | change}).encode()
        path.write_bytes(struct.pack("<Q", len(other)) + other + good[8 + length :])
        with pytest.raises(DataError, match="is no whole pack"):
            open_pack(str(path))
