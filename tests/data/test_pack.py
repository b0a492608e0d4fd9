"""Packs: the pixels that Pillow gives, with names, labels and what was unreadable; whole or not there at all."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from sklearn.datasets import load_sample_image

from sslctl.data import open_source
from sslctl.data.decode import BadImage
from sslctl.data.folder import open_folder
from sslctl.data.in_memory import HeldSource, in_memory
from sslctl.data.loader import Loader
from sslctl.data.pack import PackSource, open_pack
from sslctl.data.packing import fit, write_pack
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


def test_small_images_are_kept_bit_by_bit(files: FileSource, tmp_path: Path) -> None:
    pack = packed(files, tmp_path / "a.pack")
    assert len(pack) == 18 and pack.classes == files.classes and np.array_equal(pack.labels, files.labels)  # type: ignore[arg-type]
    for i in range(18):
        assert np.array_equal(pack.read(i), files.read(i))
        assert pack.item_name(i).endswith(f"a.pack: {files.names[i]}") and pack.size(i) == files.read(i).shape[:2]
    part, expected = pack.take(np.array([9, 2])), files.take(np.array([9, 2]))
    assert np.array_equal(part.read(1), expected.read(1)) and part.item_name(0).endswith(files.names[9])
    assert part.fingerprint() != pack.fingerprint() == open_pack(str(tmp_path / "a.pack")).fingerprint()
    with safe_open(tmp_path / "a.pack", framework="numpy") as file:  # what it is inside, for other programs
        assert file.get_tensor("pixels")[: 3 * 40 * 30].tobytes() == files.read(0).tobytes()
        assert file.get_tensor("sizes")[0].tolist() == [40, 30]


@pytest.mark.parametrize("square", [False, True])
def test_larger_images_are_pillows_at_that_size(square: bool) -> None:
    china = load_sample_image("china.jpg")
    image = Image.fromarray(china)
    if square:
        expected = image.crop((106, 0, 533, 427)).resize((100, 100), Image.Resampling.BICUBIC)
    else:
        expected = image.resize((150, 100), Image.Resampling.BICUBIC)
    assert np.array_equal(fit(china, 100, square), np.asarray(expected))
    assert fit(china.swapaxes(0, 1), 100, False).shape == (150, 100, 3)
    assert fit(china, 500, square).shape == ((427, 427, 3) if square else (427, 640, 3))


def test_large_jpegs_are_reduced_while_decoding_and_come_close(tmp_path: Path) -> None:
    photo = Image.fromarray(load_sample_image("flower.jpg")).resize((1280, 854), Image.Resampling.BICUBIC)
    (tmp_path / "set").mkdir()
    photo.save(tmp_path / "set/a.jpg", quality=95)
    files = open_folder(str(tmp_path / "set"), "train")
    assert files.reduced(200).read(0).shape == (214, 320, 3) and files.reduced(428).read(0).shape == (854, 1280, 3)
    stored = packed(files, tmp_path / "a.pack", 100).read(0)
    off = np.abs(stored.astype(int) - fit(files.read(0), 100, False))
    assert stored.shape == (100, 150, 3) and 0 < off.mean() < 1.5 and (off > 25).mean() < 2e-3


def test_training_sees_the_same_crops_from_a_pack_as_from_its_folder(files: FileSource, tmp_path: Path) -> None:
    pack = packed(files, tmp_path / "a.pack")
    augment = Augment(ViewPlan((ViewSpec(size=24),) * 2, (ViewSpec(size=12),), IMAGENET_MEAN, IMAGENET_STD), 3)
    settings = {"batch_size": 6, "seed": 1, "start_step": 0, "total_steps": 4, "sizes": [24, 24, 12]}
    both = [Loader(source, augment.geometric, workers=n, **settings) for source, n in ((files, 0), (pack, 1))]  # type: ignore[arg-type]
    for one, other in zip(*both, strict=True):
        assert torch.equal(one.index, other.index) and all(map(torch.equal, one.crops, other.crops))
        assert one.labels is not None and other.labels is not None and torch.equal(one.labels, other.labels)


def test_unreadable_images_keep_their_place_and_reason(files: FileSource, tmp_path: Path) -> None:
    Path(files.path(4)).write_bytes(b"<html>")
    done = write_pack(files, tmp_path / "a.pack", 64)
    pack = open_pack(str(tmp_path / "a.pack"))
    assert set(done.bad) == {4} == set(pack.bad) and len(pack) == 18 and "<html>" in pack.bad[4]
    with pytest.raises(BadImage, match=r"a\.pack: c0/12.png: not an image"):
        pack.read(4)
    assert np.array_equal(pack.read(5), files.read(5)) and pack.take(np.array([1, 4])).bad == {1: pack.bad[4]}
    for i in range(18):
        Path(files.path(i)).write_bytes(b"")
    with pytest.raises(DataError, match="none of the 18 images"):
        write_pack(files, tmp_path / "b.pack", 64)
    assert sorted(os.listdir(tmp_path)) == ["a.pack", "set"]


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


def _die_midway(files: FileSource, path: Path) -> None:
    def report(done: int) -> None:
        if done == 9:
            os.kill(os.getpid(), signal.SIGKILL)

    write_pack(files, path, 64, report=report)


def test_a_kill_leaves_no_pack_and_the_next_run_tidies_up(files: FileSource, tmp_path: Path) -> None:
    path = tmp_path / "out/a.pack"
    process = multiprocessing.get_context("fork").Process(target=_die_midway, args=(files, path))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    left = os.listdir(path.parent)
    assert len(left) == 1 and left[0].startswith(".a.pack.part-")
    mine = path.with_name(f".a.pack.part-{os.getppid()}")  # of a process that is still at work
    mine.write_bytes(b"")
    assert len(packed(files, path)) == 18
    assert sorted(os.listdir(path.parent)) == sorted(["a.pack", mine.name])


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
