"""Folders that timm and transformers wrote give the features of those libraries, with their images' preparation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from timm.models import save_for_hf
from torch import nn
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from sslctl.errors import CheckpointError
from sslctl.exchange.imports.folder import import_folder, is_folder

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
SMALL |= {"image_size": 32, "patch_size": 8}


def hugging_face(path: Path, kind: str = "vit", prepared: bool = True, **more: object) -> nn.Module:
    """A folder as ``save_pretrained`` writes it, and the network in it."""
    torch.manual_seed(0)
    if kind == "vit":
        net: nn.Module = ViTModel(ViTConfig(**SMALL | more), add_pooling_layer=False)
    else:
        net = Dinov2Model(Dinov2Config(**SMALL | {"mlp_ratio": 2} | more))
    net.eval().save_pretrained(path)  # type: ignore[operator]
    if prepared:
        facts = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "size": {"height": 32, "width": 32}}
        (path / "preprocessor_config.json").write_text(json.dumps(facts))
    return net


def changed(path: Path, **values: object) -> None:
    config = path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | values))


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
@torch.no_grad()
def test_a_folder_of_hugging_face_gives_its_features(kind: str, tmp_path: Path) -> None:
    theirs = hugging_face(tmp_path / "hf", kind)
    encoder, extracted = import_folder(tmp_path / "hf")
    assert extracted.layout.name == "hf" and encoder.backbone.net.blocks[0].attn.num_heads == 4
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(encoder.backbone(x).pooled, theirs(x).last_hidden_state[:, 0], rtol=1e-4, atol=1e-5)
    assert encoder.meta.image.mean == (0.1, 0.2, 0.3) and encoder.meta.image.std == (0.4, 0.5, 0.6)
    assert encoder.meta.image.size == 32 and not encoder.notes


def test_a_folder_without_a_preparation_of_images_says_what_is_assumed(tmp_path: Path) -> None:
    hugging_face(tmp_path / "hf", prepared=False)
    encoder, _ = import_folder(tmp_path / "hf")
    assert "preprocessor_config.json" in encoder.notes[0] and encoder.meta.image.mean == (0.485, 0.456, 0.406)


@torch.no_grad()
def test_a_folder_of_timm_gives_its_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("resnet18", num_classes=0, channels=[4, 8, 8, 8]).eval()
    cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "input_size": (3, 96, 96)}
    save_for_hf(theirs, tmp_path / "timm", cfg | {"architecture": "resnet18"}, {"channels": [4, 8, 8, 8]})
    changed(tmp_path / "timm", pretrained_cfg=cfg)
    encoder, extracted = import_folder(tmp_path / "timm")
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(encoder.backbone(x).pooled, theirs(x), rtol=1e-5, atol=1e-6)
    assert extracted.layout.name == "timm_folder" and encoder.spec.backbone.args["channels"] == [4, 8, 8, 8]
    assert (encoder.meta.image.size, encoder.meta.image.mean) == (96, (0.1, 0.2, 0.3))


def test_a_folder_is_known_by_its_configuration_and_its_file_of_weights(tmp_path: Path) -> None:
    hugging_face(tmp_path / "hf")
    assert is_folder(tmp_path / "hf") and is_folder(tmp_path / "hf" / "model.safetensors")
    assert not is_folder(tmp_path) and not is_folder(tmp_path / "hf" / "other.safetensors")
    (tmp_path / "config.json").write_text('{"name": "something else"}')
    assert not is_folder(tmp_path)


def test_other_models_and_unread_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "hf"
    hugging_face(path)
    changed(path, hidden_act="relu")
    with pytest.raises(CheckpointError, match="hidden_act is 'relu'"):
        import_folder(path)
    changed(path, model_type="bert")
    with pytest.raises(CheckpointError, match="a model of type bert"):
        import_folder(path)
    changed(path, model_type="vit")
    (path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        import_folder(path)


@pytest.mark.parametrize("content", ["[1]", "{", "[" * 100_000])
def test_a_configuration_that_is_no_json_object_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        is_folder(tmp_path)
