"""The cache of features: the same numbers back, anew when anything they depend on changed, never damaged ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sslctl.data.in_memory import in_memory
from sslctl.data.source import ArraySource, FileSource
from sslctl.errors import MachineError
from sslctl.evaluate.baselines import Pixels
from sslctl.evaluate.features.cache import Cache, Cached, cache_beside, cache_key, cached_features
from sslctl.evaluate.features.extract import FeatureSet, extract
from sslctl.views.evaluation import EvalTransform

CPU = torch.device("cpu")
transform = EvalTransform(8, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


@pytest.fixture
def folder(tmp_path: Path) -> FileSource:
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    names = [f"{i}.bmp" for i in range(5)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "in" / name)
    (tmp_path / "in" / "3.bmp").write_bytes(b"no image")
    return FileSource("folder", str(tmp_path / "in"), names, np.array([0, 1, 0, 1, 1]), ["a", "b"])


def key(source: FileSource | ArraySource, encoder: object = "e", t: EvalTransform = transform, **more: object) -> str:
    dtype = more.pop("dtype", torch.float32)
    return cache_key(encoder, source, t, CPU, dtype, **more)  # type: ignore[arg-type]


def same(a: FeatureSet, b: FeatureSet) -> bool:
    rest = ("classes", "skipped", "name", "fingerprint", "unreadable")
    tensors = all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("x", "labels", "index"))
    return tensors and all(getattr(a, name) == getattr(b, name) for name in rest)


def test_features_come_back_as_they_were_unreadable_images_and_all(folder: FileSource, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "features")
    assert cache.load(key(folder), folder) is None
    taken = extract(Pixels(), folder, transform)
    cache.save(key(folder), taken)
    back = cache.load(key(folder), folder)
    assert back is not None and same(taken, back)
    assert back.index.tolist() == [0, 1, 2, 4] and back.skipped[0][0].endswith("3.bmp")
    assert [path.name for path in cache.folder.iterdir()] == [f"{key(folder)[:32]}.safetensors"]


def test_labels_are_those_of_the_set_as_it_is_now(folder: FileSource, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.save(key(folder), extract(Pixels(), folder, transform))
    folder.labels, folder.classes = np.array([1, 0, 1, 0, 0]), ["b", "c"]
    back = cache.load(key(folder), folder)
    assert back is not None and back.labels.tolist() == [1, 0, 1, 0] and back.classes == ["b", "c"]


def test_the_key_tells_apart_whatever_changes_a_feature(folder: FileSource) -> None:
    first = key(folder)
    assert first == key(folder) and first == key(in_memory(folder, True))  # type: ignore[arg-type]
    others = [
        key(folder, "f"),
        key(folder, t=EvalTransform(8, (0.5, 0.4, 0.2), (0.2, 0.3, 0.4))),
        key(folder, t=EvalTransform(16, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))),
        key(folder, dtype=torch.bfloat16),
        key(folder, kind="patches"),
        key(folder.take(np.array([0, 1, 2, 3]))),
    ]
    edited = Path(folder.path(1))
    pixels = bytearray(edited.read_bytes())
    pixels[-1] ^= 255
    edited.write_bytes(pixels)  # as long as before
    os.utime(edited, ns=(1, 1))
    others.append(key(folder))
    assert len({first, *others}) == 1 + len(others)


def test_an_array_is_known_by_its_pixels() -> None:
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    before = key(ArraySource("a", pixels))
    assert key(ArraySource("renamed", pixels.copy())) == before
    pixels[1, 0, 0, 0] = 1
    assert key(ArraySource("a", pixels)) != before


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other key", "text"])
def test_a_damaged_file_is_as_good_as_none(folder: FileSource, tmp_path: Path, damage: str) -> None:
    cache = Cache(tmp_path)
    taken = extract(Pixels(), folder, transform)
    cache.save(key(folder), taken)
    (path,) = tmp_path.glob("*.safetensors")
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-40] ^= 1
    if damage == "other key":  # a file that was renamed
        (tmp_path / f"{key(folder, 'other')[:32]}.safetensors").write_bytes(data)
        assert cache.load(key(folder, "other"), folder) is None
        return
    path.write_bytes({"cut": data[:-9], "empty": b"", "text": b"not this " * 9}.get(damage, bytes(data)))
    assert cache.load(key(folder), folder) is None
    cache.save(key(folder), taken)
    assert cache.load(key(folder), folder) is not None


def test_a_folder_that_cannot_be_written_is_an_error_of_the_machine(folder: FileSource, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MachineError, match="cannot write"):
        Cache(tmp_path / "file" / "features").save("0" * 64, extract(Pixels(), folder, transform))


def test_where_the_cache_lies() -> None:
    assert cache_beside(Path("runs/a/checkpoints/last.safetensors")).folder == Path("runs/a/features")
    assert cache_beside(Path("downloads/a.safetensors")).folder == Path("downloads/features")


def used(folder: Path) -> set[str]:
    return {path.stem[-1] for path in folder.glob("*.safetensors*")}


def test_files_used_last_stay_within_the_limit(folder: FileSource, tmp_path: Path) -> None:
    taken = extract(Pixels(), folder, transform)
    Cache(tmp_path / "a").save("0" * 32, taken)
    size = (tmp_path / "a" / f"{'0' * 32}.safetensors").stat().st_size
    cache = Cache(tmp_path / "features", limit=3 * size + 10)
    for age, name in enumerate("123"):
        cache.save(name * 32, taken)
        os.utime(cache.folder / f"{name * 32}.safetensors", ns=(age, age))
    (cache.folder / "mine.safetensors").write_bytes(b"not a file of the cache")
    os.utime(cache.folder / "mine.safetensors", ns=(0, 0))
    assert cache.load("1" * 32, folder) is not None  # used again: now 2 is the oldest
    cache.save("4" * 32, taken)
    assert used(cache.folder) == {"1", "3", "4", "e"}  # mine stays
    partial = cache.folder / f".{'5' * 32}.safetensors.part-99"  # of a process that was killed
    partial.write_bytes(bytes(2 * size))
    os.utime(partial, ns=(5, 5))
    cache.save("6" * 32, taken)
    assert used(cache.folder) == {"1", "4", "6", "e"} and not partial.exists()
    Cache(cache.folder, limit=0).save("7" * 32, taken)
    assert used(cache.folder) == {"7", "e"}  # the newest stays in any case


def test_features_are_taken_once(folder: FileSource, tmp_path: Path) -> None:
    passes: list[int] = []
    cache = Cache(tmp_path / "features")

    def take(where: Cache | None = cache, **how: Any) -> Cached:
        return cached_features(where, "e", Pixels(), folder, transform, starting=lambda: passes.append(1), **how)

    first, second = take(), take(batch_size=2)
    assert (first.from_cache, second.from_cache, len(passes)) == (False, True, 1) and same(
        first.features, second.features
    )
    assert not any(one.from_cache for one in (take(dtype=torch.bfloat16), take(kind="mean"), take(None)))
    (tmp_path / "file").write_bytes(b"")
    failed = take(Cache(tmp_path / "file"))
    assert same(failed.features, first.features) and "cannot write" in failed.not_stored
