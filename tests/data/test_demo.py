"""The drawn set: the same every time, balanced, with masks that fit, and neither trivial nor impossible."""

from __future__ import annotations

import numpy as np
import pytest

from sslctl.data.demo import DEMOS, open_demo
from sslctl.data.demo_outlines import SHAPES


@pytest.fixture(scope="module", params=list(DEMOS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_default_sizes_and_classes(name: str) -> None:
    train, val = open_demo(name, "train"), open_demo(name, "val")
    assert train.array.shape == (4000, 32, 32, 3) and val.array.shape == (1000, 32, 32, 3)
    assert train.classes == sorted(SHAPES) and len(train.classes) == 16
    assert train.labels is not None and np.array_equal(np.bincount(train.labels), np.full(16, 250))
    assert not np.array_equal(train.array[:1000], val.array)
    assert len({image.tobytes() for image in train.array}) == 4000


def test_an_image_depends_on_its_number_not_on_how_many_there_are(name: str) -> None:
    few, many = open_demo(name, "train", n=300), open_demo(name, "train", n=600)
    assert np.array_equal(few.array, many.array[:300]) and np.array_equal(few.masks, many.masks[:300])
    assert not np.array_equal(open_demo(name, "train", n=300, seed=1).array, few.array)
    assert open_demo(name, "train", n=20, size=48).array.shape == (20, 48, 48, 3)


def test_fingerprints_tell_sets_apart() -> None:
    prints = [
        open_demo(name, split, n=16, seed=seed).fingerprint()
        for name in DEMOS
        for split in ("train", "val")
        for seed in (0, 1)
    ]
    assert len(set(prints)) == 8
    assert open_demo("demo", "train", n=16).fingerprint() == prints[0]


def test_pixels_are_those_that_version_1_drew(name: str) -> None:
    """Weighted by place, so that nothing can move; room for one grey level in a hundred pixels of other processors."""
    source = open_demo(name, "train", n=300)
    weight = np.arange(source.array.size).reshape(source.array.shape) % 251
    drawn = int((source.array * weight).sum())
    assert abs(drawn - {"demo": 13_574_549_365, "demo-hard": 13_129_577_499}[name]) < 0.01 * 125 * source.array.size
    assert int((source.masks // 255 * weight[..., 0]).sum()) == 7_633_102


def test_masks_cover_the_shape() -> None:
    """On flat fills and grounds, pixels on and off the mask differ in brightness, as the contrast rule demands."""
    source = open_demo("demo", "train", n=320)
    assert set(np.unique(source.masks)) == {0, 255}
    grey = source.array @ np.array([0.3, 0.6, 0.1])
    on = source.masks == 255
    share = on.mean((1, 2))
    assert share.min() > 0.02 and share.max() < 0.6
    inside = (grey * on).sum((1, 2)) / on.sum((1, 2))
    outside = (grey * ~on).sum((1, 2)) / (~on).sum((1, 2))
    assert np.mean(np.abs(inside - outside) > 25) > 0.95


def test_taking_some_takes_their_masks() -> None:
    source = open_demo("demo", "train", n=32)
    part = source.take(np.array([5, 3]))
    assert np.array_equal(part.masks, source.masks[[5, 3]]) and np.array_equal(part.array, source.array[[5, 3]])
    assert part.fingerprint() != source.fingerprint()


def test_raw_pixels_know_a_little_and_masks_a_lot() -> None:
    """What makes it a useful demo: nuisances hide the class from raw pixels, while the shape itself tells it."""
    train, val = open_demo("demo", "train", n=2000), open_demo("demo", "val", n=400)
    assert train.labels is not None and val.labels is not None

    def nearest(a: np.ndarray, b: np.ndarray) -> float:
        a, b = (x.reshape(len(x), -1).astype(np.float32) for x in (a, b))
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a - a.mean(0), b - a.mean(0)))
        return float((train.labels[(b @ a.T).argmax(1)] == val.labels).mean())

    raw, shape = nearest(train.array, val.array), nearest(train.masks, val.masks)
    assert 0.12 < raw < 0.45
    assert shape > 0.6
