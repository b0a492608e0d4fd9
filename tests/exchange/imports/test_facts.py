"""An encoder of another tool takes the form of ours, and comes back from a checkpoint that holds it alone."""

from __future__ import annotations

from pathlib import Path

import torch

from sslctl.backbones import build_backbone
from sslctl.exchange.imports.facts import as_loaded, write
from sslctl.runs.checkpoint import read
from sslctl.runs.encoder import LoadedEncoder, load_encoder
from sslctl.runs.meta import ImageSpec, Imported
from sslctl.spec.schema import BackboneSpec

SPEC = BackboneSpec(arch="resnet18", args={"channels": [4, 4, 8, 8], "layers": [1, 1, 1, 1]})
IMAGE = ImageSpec(size=32, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))


def loaded(seed: int, **source: str) -> LoadedEncoder:
    torch.manual_seed(seed)
    backbone = build_backbone(SPEC, 32)
    return as_loaded(backbone, SPEC, IMAGE, Imported(layout="timm", **source), Path("a.pth"), ["a note"])


def test_what_nobody_knows_is_called_unknown() -> None:
    encoder = loaded(0)
    assert encoder.meta.step == 0 and encoder.meta.data.name == "unknown" and encoder.meta.data.images is None
    assert encoder.spec.method.name == "unknown" and loaded(0, method="dino").meta.method == "dino"
    assert not encoder.backbone.training and encoder.notes == ["a note"]
    assert encoder.meta.checked_spec(Path("a")).backbone == SPEC


def test_its_sha256_is_that_of_its_weights() -> None:
    assert loaded(0).meta.sha256 == loaded(0, name="other").meta.sha256 != loaded(1).meta.sha256


def test_it_comes_back_from_a_checkpoint_that_holds_it_alone(tmp_path: Path) -> None:
    encoder = loaded(0)
    write(encoder, tmp_path / "a.safetensors")
    meta, tensors = read(tmp_path / "a.safetensors")
    assert meta.sha256 == encoder.meta.sha256 and all(name.startswith("encoder.") for name in tensors)
    again = load_encoder(tmp_path / "a.safetensors")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again.backbone(x).pooled, encoder.backbone(x).pooled) and again.meta.image == IMAGE
