"""Writing a pack: the pixels that Pillow gives, whole or not there at all."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from sklearn.datasets import load_sample_image

from sslctl.data import open_source
from sslctl.data.decode import BadImage
from sslctl.data.folder import open_folder
from sslctl.data.pack import PackSource, open_pack
from sslctl.data.packing import fit, write_pack
from sslctl.data.source import FileSource
from sslctl.errors import DataError

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
