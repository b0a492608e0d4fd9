"""A pass over a set: features in order and to the bit, unreadable images told, the encoder as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sslctl.backbones import build_backbone
from sslctl.data.folder import open_folder
from sslctl.data.in_memory import in_memory
from sslctl.data.source import FileSource
from sslctl.errors import CheckpointError
from sslctl.evaluate.features.stream import frozen, stream
from sslctl.spec.schema import BackboneSpec
from sslctl.views.evaluation import EvalTransform

from ...training import picture_folder

TRANSFORM = EvalTransform(32, (0.4, 0.5, 0.6), (0.2, 0.2, 0.2))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return build_backbone(BackboneSpec(arch="resnet18", args={"channels": [4, 4, 8, 8], "layers": [1, 1, 1, 1]}), 32)


@pytest.fixture
def files(tmp_path: Path) -> FileSource:
    folder = picture_folder(tmp_path / "pictures", 11)
    (folder / "class0" / "002.webp").write_bytes(b"<html>")
    return open_folder(str(folder), "train")


@pytest.mark.parametrize("workers", [0, 2])
def test_features_are_those_of_the_encoder_on_each_image(net: nn.Module, files: FileSource, workers: int) -> None:
    chunks = list(stream(net, files, TRANSFORM, batch_size=4, workers=workers))
    assert [chunk.done for chunk in chunks] == [4, 8, 11]
    assert [i for chunk in chunks for i in chunk.positions] == [i for i in range(11) if i != chunks_bad(chunks)[0][0]]
    ((_, reason),) = chunks_bad(chunks)
    assert "not an image" in reason
    net.eval()
    for chunk in chunks:
        x = torch.stack([TRANSFORM(files.read(i)) for i in chunk.positions])
        with torch.no_grad():
            torch.testing.assert_close(chunk.x, net(x).pooled, rtol=1e-4, atol=1e-5)


def chunks_bad(chunks: list) -> list[tuple[int, str]]:  # type: ignore[type-arg]
    return [bad for chunk in chunks for bad in chunk.bad]


def test_a_later_start_gives_the_same_bits(net: nn.Module, files: FileSource) -> None:
    whole = list(stream(net, files, TRANSFORM, batch_size=4))
    rest = list(stream(net, files, TRANSFORM, batch_size=4, start=8))
    assert len(rest) == 1 and torch.equal(rest[0].x, whole[2].x) and rest[0].positions == whole[2].positions


def test_a_set_in_memory_gives_the_same(net: nn.Module, tmp_path: Path) -> None:
    from PIL import Image

    for i in range(6):
        Image.effect_noise((40, 40), 60).convert("RGB").save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"")
    source = open_folder(str(tmp_path), "train")
    one, two = (torch.cat([c.x for c in stream(net, s, TRANSFORM, batch_size=4)]) for s in (source, in_memory(source)))
    assert one.shape == (5, 8)
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_the_encoder_has_its_modes_and_weights_back(net: nn.Module, files: FileSource) -> None:
    net.train()
    next(iter(net.modules())).eval()
    modes = [module.training for module in net.modules()]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    list(stream(net, files, TRANSFORM))
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_writing_to_a_frozen_encoder_is_a_bug_that_is_noticed() -> None:
    norm = nn.BatchNorm1d(3)
    with pytest.raises(RuntimeError, match="was written to"), frozen(norm):
        assert not norm.training
        norm.train()(torch.randn(4, 3))
    assert norm.training


def test_features_that_are_not_finite_are_refused(files: FileSource) -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) / 0

    with pytest.raises(CheckpointError, match="not finite"):
        list(stream(Broken(), files, TRANSFORM))
