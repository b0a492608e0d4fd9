"""The folder for timm: what its config says, and that it never loads wrongly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch

from sslctl.exchange.exports import timm_folder as module
from sslctl.exchange.exports.formats import ExportJob, ExportResult
from tests.exchange.exports.encoders import encoder


def write(kind: str, size: int, place: Path, **more: object) -> ExportResult:
    folder = place / "net"
    folder.mkdir()
    return module.write_timm(ExportJob(encoder(kind, size, **more), folder, "net"))


@pytest.mark.parametrize(("kind", "size", "more"), [("resnet", 64, {}), ("vit", 32, {"drop_path": 0.2})])
def test_timm_loads_the_folder_to_the_bit(kind: str, size: int, more: dict[str, object], tmp_path: Path) -> None:
    write(kind, size, tmp_path, **more)
    net = timm.create_model(f"local-dir:{tmp_path / 'net'}", pretrained=True).eval()
    x = torch.randn(3, 3, size, size)
    torch.testing.assert_close(net(x), encoder(kind, size, **more).backbone(x).pooled, rtol=0, atol=0)
    assert [list(net.pretrained_cfg[k]) for k in ("mean", "std")] == [[0.4, 0.5, 0.6], [0.2, 0.3, 0.4]]
    assert net.pretrained_cfg["crop_pct"] == (1.0 if size < 64 else 0.875)


def test_the_small_stem_is_refused_by_timm_alone(tmp_path: Path) -> None:
    assert "cannot build the stem" in write("resnet", 32, tmp_path).notes[0]
    with pytest.raises(RuntimeError, match="conv1"):
        timm.create_model(f"local-dir:{tmp_path / 'net'}", pretrained=True)


def test_positions_go_along_at_the_size_of_the_images(tmp_path: Path) -> None:
    ours = encoder("dino", 32)  # its own grid is that of 48 px
    assert ours.backbone.net.pos_embed.shape == (1, 37, 16)
    assert module.model_args(ours)["img_size"] == 32
    assert module.model_args(encoder("vit", 32, native_size=48))["img_size"] == 48  # timm resizes as we do
    write("dino", 32, tmp_path)
    net = timm.create_model(f"local-dir:{tmp_path / 'net'}", pretrained=True).eval()
    assert net.pos_embed.shape == (1, 17, 16)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(net(x), ours.backbone(x).pooled, rtol=0, atol=1e-6)


def test_pooling_is_said_where_it_is_not_timms_own() -> None:
    assert "global_pool" not in module.model_args(encoder("vit", 32))
    other = module.model_args(encoder("averaged", 32))
    assert (other["global_pool"], other["fc_norm"]) == ("avg", False)


def test_config_is_that_of_timms_hub() -> None:
    config = json.loads(json.dumps(module.config(encoder("vit", 32, drop_path=0.2))))
    assert config["architecture"] == "vit_tiny_patch16_224"
    assert (config["num_classes"], config["num_features"]) == (0, 16)
    assert config["model_args"]["img_size"] == 32 and "num_classes" not in config["model_args"]
    assert "drop_path_rate" not in config["model_args"]
    assert config["pretrained_cfg"]["input_size"] == [3, 32, 32]
