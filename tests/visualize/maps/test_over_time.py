"""Maps over a run: which steps and images, resumed from a file, the encoder left the same, damaged files ignored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sslctl.backbones import Backbone, attention, build_backbone, own_grad_cam
from sslctl.data.source import ArraySource
from sslctl.spec.schema import BackboneSpec
from sslctl.views.evaluation import EvalTransform
from sslctl.visualize.maps.over_time import (
    FILE,
    IMAGES,
    MapHistory,
    MapRecorder,
    evenly_spaced,
    fixed_images,
    mean_maps,
    read_maps,
    shrink,
    write_maps,
)

TRANSFORM = EvalTransform(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
VIT = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}


def net(arch: str = "vit_tiny_patch16_224", **args: object) -> Backbone:
    torch.manual_seed(0)
    return build_backbone(BackboneSpec(arch=arch, args=args or VIT), 32)


@pytest.fixture
def source() -> ArraySource:
    return ArraySource("set", np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8))


def test_positions_are_evenly_spaced_and_not_at_the_ends() -> None:
    assert evenly_spaced(range(101), 3) == [25, 50, 75]
    assert evenly_spaced(range(3), 5) == [0, 1, 2]
    assert len(evenly_spaced(range(7), 6)) == len(set(evenly_spaced(range(7), 6)))


def test_images_are_those_of_the_set_as_the_encoder_sees_them(source: ArraySource) -> None:
    images, names = fixed_images(source, TRANSFORM, 4)
    at = evenly_spaced(source, 4)
    assert names == [source.item_name(i) for i in at]
    assert torch.equal(images, torch.stack([TRANSFORM.crop(source.read(i)) for i in at]))
    assert shrink(images) is images and shrink(torch.zeros(1, 3, 400, 400, dtype=torch.uint8)).shape[-1] == 160


def test_maps_are_attention_of_a_vit_and_grad_cam_of_a_resnet() -> None:
    x = torch.randn(2, 3, 32, 32)
    vit, resnet = net().eval(), net("resnet18", channels=[4, 4, 8, 8]).eval()
    torch.testing.assert_close(mean_maps(vit, x), attention(vit, x).mean(1).detach())
    torch.testing.assert_close(mean_maps(resnet, x), own_grad_cam(resnet, x).mean(1).detach())


def test_maps_are_recorded_at_shares_of_the_run_and_the_encoder_stays_the_same(
    source: ArraySource, tmp_path: Path
) -> None:
    encoder = net("resnet18", channels=[4, 4, 8, 8]).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    recorder = MapRecorder(tmp_path, encoder, source, TRANSFORM, 100)
    recorder.begin(0)
    for step in range(1, 101):
        recorder.at(step)
    history = read_maps(tmp_path / FILE)
    assert history is not None and sorted(history.maps) == [0, 2, 5, 10, 20, 40, 70, 100]
    assert len(history.images) == len(history.names) == IMAGES
    assert encoder.training and all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_a_resumed_run_keeps_the_maps_up_to_its_step(source: ArraySource, tmp_path: Path) -> None:
    encoder = net()
    first = MapRecorder(tmp_path, encoder, source, TRANSFORM, 100)
    for step in (0, 10, 70):
        first.at(step)
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(3)
    second = MapRecorder(tmp_path, encoder, source, TRANSFORM, 100)
    second.begin(30)
    history = read_maps(tmp_path / FILE)
    assert history is not None and sorted(history.maps) == [0, 10, 30]
    assert torch.equal(history.maps[10], first.history.maps[10])
    assert not torch.equal(history.maps[30], history.maps[10])
    other = ArraySource("other", np.zeros((20, 32, 32, 3), np.uint8))
    third = MapRecorder(tmp_path, encoder, other, TRANSFORM, 100)
    third.begin(30)
    assert sorted(third.history.maps) == [30], "maps of other images are dropped"


def test_a_missing_or_damaged_file_has_no_maps(tmp_path: Path) -> None:
    path = tmp_path / FILE
    assert read_maps(path) is None
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    write_maps(path, MapHistory(images, ["a", "b"], {3: torch.ones(2, 4, 4)}))
    history = read_maps(path)
    assert history is not None and history.names == ["a", "b"] and history.maps.keys() == {3}
    write_maps(path, MapHistory(images, ["a"], {}))
    assert read_maps(path) is None, "two images, one name"
    path.write_bytes(b"nonsense")
    assert read_maps(path) is None
