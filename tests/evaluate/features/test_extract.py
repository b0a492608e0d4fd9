"""Features: right images in the right order, broken ones listed, and a backbone that stays as it was to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sslctl.backbones import Backbone, build_backbone
from sslctl.data.source import ArraySource, FileSource
from sslctl.errors import CheckpointError, DataError
from sslctl.evaluate.baselines import Pixels, random_backbone
from sslctl.evaluate.features.extract import extract
from sslctl.spec.schema import BackboneSpec
from sslctl.views.evaluation import EvalTransform

SPEC = BackboneSpec(arch="resnet18", args={"channels": [4, 4, 8, 8], "layers": [1, 1, 1, 1]}, drop_path=0.3)
RNG = np.random.default_rng(0)


to_tensor = EvalTransform(32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


@pytest.fixture
def backbone() -> Backbone:
    torch.manual_seed(0)
    net = build_backbone(SPEC, 32)
    net(torch.randn(8, 3, 32, 32))  # statistics that are not the initial ones
    return net


@pytest.fixture
def array() -> ArraySource:
    pixels = RNG.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    return ArraySource("array", pixels, np.arange(10) % 2, ["a", "b"])


@pytest.fixture
def folder(tmp_path: Path) -> FileSource:
    names = []
    for i in range(11):
        names.append(f"{i:02}.png")
        Image.fromarray(RNG.integers(0, 256, (32, 40, 3), dtype=np.uint8)).save(tmp_path / names[-1])
    (tmp_path / "03.png").write_bytes(b"no image at all")
    (tmp_path / "07.png").write_bytes((tmp_path / "07.png").read_bytes()[:200])
    return FileSource("folder", str(tmp_path), names, np.arange(11) % 3, ["a", "b", "c"])


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_features_are_those_of_the_net_in_eval_mode(backbone: Backbone, array: ArraySource, batch_size: int) -> None:
    found = extract(backbone, array, to_tensor, batch_size=batch_size)
    x = torch.stack([to_tensor(array.read(i)) for i in range(10)])
    torch.testing.assert_close(found.x, backbone.eval()(x).pooled, rtol=1e-4, atol=1e-5)
    assert found.x.dtype == torch.float32 and not found.x.requires_grad
    assert found.labels.tolist() == [0, 1] * 5 and found.index.tolist() == list(range(10))
    assert (found.name, found.fingerprint, found.classes) == ("array", array.fingerprint(), ["a", "b"])


def test_the_backbone_does_not_move_by_a_bit(backbone: Backbone, array: ArraySource) -> None:
    backbone.train()
    backbone.net.layer2.eval()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    modes = [m.training for m in backbone.modules()]
    generator = torch.get_rng_state()
    extract(backbone, array, to_tensor, batch_size=3)
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    assert [m.training for m in backbone.modules()] == modes
    assert torch.equal(torch.get_rng_state(), generator)


def test_an_encoder_that_is_written_to_is_noticed(array: ArraySource) -> None:
    class Restless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            return x.flatten(1)

    with pytest.raises(RuntimeError, match="written to"):
        extract(Restless(), array, to_tensor)


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_left_out_and_listed(backbone: Backbone, folder: FileSource, workers: int) -> None:
    seen: list[tuple[int, int]] = []
    found = extract(
        backbone,
        folder,
        to_tensor,
        batch_size=2,
        workers=workers,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert found.index.tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert found.labels.tolist() == [0, 1, 2, 1, 2, 0, 2, 0, 1]
    assert [Path(name).name for name, _ in found.skipped] == ["03.png", "07.png"]
    assert "not an image" in found.skipped[0][1] and found.skipped[1][1]
    alone = backbone.eval()(to_tensor(folder.read(8))[None]).pooled
    torch.testing.assert_close(found.x[6:7], alone, rtol=1e-4, atol=1e-5)
    assert seen[-1] == (11, 11) and len(seen) == 6


def test_images_that_an_array_pack_could_not_decode_count_as_unreadable(backbone: Backbone, array: ArraySource) -> None:
    array.bad = {4: "truncated"}
    found = extract(backbone, array, to_tensor)
    assert 4 not in found.index.tolist() and found.skipped == [(array.item_name(4), "truncated")]


def test_nothing_readable_and_nothing_finite_are_errors(backbone: Backbone, array: ArraySource, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of the 1 images of empty can be read: 1x not an image"):
        extract(backbone, FileSource("empty", str(tmp_path), ["a.png"]), to_tensor)
    with torch.no_grad():
        backbone.net.bn1.weight[0] = float("nan")
    with pytest.raises(CheckpointError, match="not finite"):
        extract(backbone, array, to_tensor)


def test_bf16_features_are_close_and_come_as_float32(array: ArraySource) -> None:
    vit = build_backbone(BackboneSpec(arch="vit_tiny_patch16_224", args={"patch_size": 8, "depth": 2}), 32)
    exact, rough = (extract(vit, array, to_tensor, dtype=dtype).x for dtype in (torch.float32, torch.bfloat16))
    assert rough.dtype == torch.float32 and not torch.equal(exact, rough)
    assert torch.nn.functional.cosine_similarity(exact, rough).min() > 0.999


def test_labels_are_none_where_there_are_none(backbone: Backbone, array: ArraySource) -> None:
    bare = ArraySource("bare", array.array)
    assert extract(backbone, bare, to_tensor).labels.tolist() == [-1] * 10


def test_the_random_baseline_is_a_function_of_its_seed() -> None:
    state = torch.get_rng_state()
    a, b, other = random_backbone(SPEC, 32), random_backbone(SPEC, 32), random_backbone(SPEC, 32, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(a(x).pooled, b(x).pooled, rtol=0, atol=0)
    assert not torch.equal(a(x).pooled, other(x).pooled)


def test_the_pixel_baseline_is_the_pixels() -> None:
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(Pixels()(x), x.view(2, 48))
