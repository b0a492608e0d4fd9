"""Maps of the same images over a run: taken when they are due, kept on disk, the encoder as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sslctl.backbones import Backbone, attention, build_backbone
from sslctl.data.source import ArraySource
from sslctl.spec.schema import BackboneSpec
from sslctl.views.evaluation import EvalTransform
from sslctl.visualize.maps.over_time import (
    FILE,
    IMAGES,
    MAX_SIDE,
    SHARES,
    MapHistory,
    MapRecorder,
    evenly_spaced,
    mean_maps,
    read_maps,
    shrink,
    write_maps,
)

TRANSFORM = EvalTransform(32, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def vit() -> Backbone:
    torch.manual_seed(0)
    args = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    return build_backbone(BackboneSpec(arch="vit_tiny_patch16_224", args=args), 32)


def source(n: int = 20, seed: int = 0) -> ArraySource:
    return ArraySource("set", np.random.default_rng(seed).integers(0, 256, (n, 40, 40, 3), dtype=np.uint8))


def test_looks_are_taken_at_shares_of_the_run_and_kept(vit: Backbone, tmp_path: Path) -> None:
    vit.train()
    before = {name: value.clone() for name, value in vit.state_dict().items()}
    recorder = MapRecorder(tmp_path, vit, source(), TRANSFORM, total=100)
    recorder.begin(0)
    for step in range(1, 101):
        recorder.at(step)
    recorded = read_maps(tmp_path / FILE)
    assert recorded is not None and list(recorded.maps) == [round(100 * share) for share in SHARES]
    assert recorded.images.shape == (IMAGES, 3, 32, 32) and recorded.maps[0].shape == (IMAGES, 4, 4)
    assert vit.training and all(torch.equal(before[name], value) for name, value in vit.state_dict().items())


def test_a_resumed_run_takes_up_what_was_seen_before_its_step(vit: Backbone, tmp_path: Path) -> None:
    first = MapRecorder(tmp_path, vit, source(), TRANSFORM, total=100)
    first.begin(0)
    for step in (5, 40):
        first.at(step)
    again = MapRecorder(tmp_path, vit, source(), TRANSFORM, total=100)
    again.begin(10)
    assert list(again.history.maps) == [0, 5, 10], "that of step 40 will be seen again"
    other = MapRecorder(tmp_path, vit, source(seed=1), TRANSFORM, total=100)
    other.begin(10)
    assert list(other.history.maps) == [10], "other images begin anew"


def test_a_vit_shows_the_mean_of_its_heads_and_others_a_map_of_their_own(vit: Backbone) -> None:
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(mean_maps(vit, x), attention(vit, x).mean(1))
    resnet = build_backbone(BackboneSpec(arch="resnet18", args={"channels": [4, 4, 8, 8], "layers": [1, 1, 1, 1]}), 64)
    found = mean_maps(resnet.eval(), torch.randn(2, 3, 64, 64))
    assert found.shape == (2, 2, 2) and torch.isfinite(found).all()
    assert all(p.grad is None for p in resnet.parameters())


@pytest.mark.parametrize(
    ("n", "count", "places"), [(3, 6, [0, 1, 2]), (11, 3, [2, 5, 8]), (100, 1, [50]), (6, 6, [0, 1, 2, 3, 4, 5])]
)
def test_places_are_evenly_spaced(n: int, count: int, places: list[int]) -> None:
    assert evenly_spaced(range(n), count) == places


def test_images_are_no_larger_than_a_page_needs() -> None:
    small, large = torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.full((1, 3, 224, 224), 9, dtype=torch.uint8)
    assert shrink(small) is small
    assert shrink(large).shape == (1, 3, MAX_SIDE, MAX_SIDE) and bool((shrink(large) == 9).all())


def test_files_read_back_and_damaged_ones_are_none(tmp_path: Path) -> None:
    history = MapHistory(
        torch.zeros(2, 3, 4, 4, dtype=torch.uint8), ["a", "b"], {3: torch.ones(2, 1, 1), 10: torch.zeros(2, 1, 1)}
    )
    path = tmp_path / FILE
    write_maps(path, history)
    found = read_maps(path)
    assert found is not None and found.names == ["a", "b"] and list(found.maps) == [3, 10]
    assert torch.equal(found.maps[3], history.maps[3]) and torch.equal(found.images, history.images)
    path.write_bytes(path.read_bytes()[:-3])
    assert read_maps(path) is None and read_maps(tmp_path / "gone") is None
    write_maps(path, MapHistory(torch.zeros(2, 3, 4, 4), ["a", "b"], {}))  # float, not uint8
    assert read_maps(path) is None
