"""Images in both sets: by the bytes of files, by pixels in memory, within one set; nothing that is merely alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from sslctl.data.source import ArraySource, FileSource
from sslctl.evaluate.train_test_overlap import HEAD, find_overlap


def files(folder: Path, contents: dict[str, bytes]) -> FileSource:
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return FileSource(str(folder), str(folder), sorted(contents))


def test_files_of_equal_bytes_are_found_whatever_they_are_called(tmp_path: Path) -> None:
    long = bytes(range(256)) * (HEAD // 128)
    train = files(tmp_path / "a", {"0": b"one", "1": long, "2": b"two", "3": b"two"})
    test = files(tmp_path / "b", {"0": b"six", "1": b"two", "2": long, "3": long[:-1] + b"!", "4": b"one!"})
    found = find_overlap(train, test)
    assert found.by == "file bytes" and found.pairs == {1: 2, 2: 1}
    assert find_overlap(train, train).pairs == {2: 3, 3: 2}
    (tmp_path / "b" / "1").unlink()  # what cannot be read equals nothing
    assert find_overlap(train, test).pairs == {2: 1}


def test_pixels_count_where_a_set_is_in_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    array[4] = array[1]
    train = ArraySource("memory", array)
    train.bad = {3: "unreadable"}
    other = array[[0, 2, 3, 1]].copy()
    other[1, 0, 0, 0] ^= 1
    test = ArraySource("other", other)
    assert find_overlap(train, test).pairs == {0: 0, 3: 1}  # not 1: a single bit; not 2: no image there
    assert find_overlap(train, train).pairs == {1: 4, 4: 1}
    Image.fromarray(array[2]).save(tmp_path / "2.png")
    (tmp_path / "no.png").write_bytes(b"no image")
    found = find_overlap(train, FileSource("files", str(tmp_path), ["no.png", "2.png"]))
    assert found.by == "pixels" and found.pairs == {1: 2}
