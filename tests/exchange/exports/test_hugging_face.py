"""transformers' own classes read the folder, strictly, and give our features; images are prepared as ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from transformers import AutoModel, BitImageProcessor

from sslctl.errors import SpecError
from sslctl.exchange.exports.formats import ExportJob
from sslctl.exchange.exports.hugging_face import processor_config, resnet_export, vit_export, write_hugging_face

from .encoders import encoder

KINDS = [
    ("vit", 32, "ViTModel"),
    ("dino", 32, "ViTModel"),
    ("dinov2", 32, "Dinov2Model"),
    ("registers", 32, "Dinov2WithRegistersModel"),
    ("giant", 32, "Dinov2Model"),
    ("resnet", 64, "ResNetModel"),
]


@pytest.mark.parametrize(("kind", "size", "name"), KINDS)
@torch.no_grad()
def test_the_folder_is_read_by_the_class_that_fits(kind: str, size: int, name: str, tmp_path: Path) -> None:
    ours = encoder(kind, size)
    (tmp_path / "net").mkdir()
    written = write_hugging_face(ExportJob(ours, tmp_path / "net", "net"))
    net, info = AutoModel.from_pretrained(tmp_path / "net", output_loading_info=True)
    assert type(net).__name__ == name and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert all("pooler" in key for key in info["missing_keys"]), "of ViTModel, which the card leaves out"
    x = torch.randn(2, 3, size, size)
    answer = net.eval()(pixel_values=x)
    found = answer.pooler_output.flatten(1) if kind == "resnet" else answer.last_hidden_state[:, 0]
    torch.testing.assert_close(found, ours.backbone(x).pooled, rtol=1e-4, atol=1e-5)
    assert bool(written.notes) == (kind != "resnet")


def test_images_are_prepared_as_evaluation_prepares_them() -> None:
    ours = encoder("resnet", 64)
    photo = load_sample_image("china.jpg")
    config = processor_config(ours.meta.image)
    theirs = BitImageProcessor(**{key: value for key, value in config.items() if key != "image_processor_type"})
    x = theirs(Image.fromarray(photo), return_tensors="pt")["pixel_values"][0]
    off = (x - ours.transform()(photo)).abs() * torch.tensor(ours.meta.image.std)[:, None, None] * 255
    assert off.max() < 3 and off.mean() < 0.2


def test_what_no_class_of_transformers_can_be_is_named() -> None:
    with pytest.raises(SpecError, match="no ViT with another pooling and no class token"):
        vit_export(encoder("averaged", 32).backbone, 32)
    grouped = encoder("resnet", 64, arch="resnext50_32x4d", args={"layers": [1, 1, 1, 1]})
    with pytest.raises(SpecError, match="no ResNeXt"):
        resnet_export(grouped.backbone)


def test_it_goes_through_timm_instead_but_not_with_a_small_stem(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    written = write_hugging_face(ExportJob(encoder("convnext", 64), tmp_path / "net", "net"))
    assert "through timm" in written.notes[0]
    assert json.loads((tmp_path / "net" / "config.json").read_text())["architecture"] == "convnext_atto"
    grouped = encoder("resnet", 32, arch="resnext50_32x4d", args={"layers": [1, 1, 1, 1]})
    with pytest.raises(SpecError, match="timm cannot build the stem for small images"):
        write_hugging_face(ExportJob(grouped, tmp_path / "net", "net"))
