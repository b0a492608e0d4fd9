"""The encoder of a checkpoint: the weights of the run, ready to use, and what the file says about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sslctl.errors import CheckpointError, SpecError
from sslctl.runs.checkpoint import read, snapshot, write
from sslctl.runs.encoder import load_encoder
from sslctl.runs.meta import Imported

from .small_run import meta, small_run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "run" / "checkpoints" / "step-000000002.safetensors", *snapshot(*small_run(0), meta()))
    return tmp_path / "run"


def test_it_is_the_backbone_of_the_run_in_evaluation(path: Path) -> None:
    encoder = load_encoder(path)
    method, _ = small_run(0)
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(encoder.backbone(x).pooled, method.encoder().eval()(x).pooled)
    assert not encoder.backbone.training and not any(p.requires_grad for p in encoder.backbone.parameters())
    assert (encoder.arch, encoder.path.name) == ("resnet18", "step-000000002.safetensors")


def test_images_come_to_it_as_in_training(path: Path) -> None:
    image = np.full((32, 32, 3), 255, np.uint8)
    pixels = load_encoder(path).transform()(image)
    torch.testing.assert_close(pixels[:, 0, 0], torch.tensor([0.5, 0.6, 0.7]) / 0.2)
    assert load_encoder(path).transform(64)(image).shape == (3, 64, 64)


def test_its_identity_changes_with_its_weights_and_nothing_else(path: Path, tmp_path: Path) -> None:
    first = load_encoder(path).identity()
    write(tmp_path / "same.safetensors", *snapshot(*small_run(0), meta().but(probe={"knn": 0.1})))
    write(tmp_path / "later.safetensors", *snapshot(*small_run(0, steps=3), meta()))
    assert load_encoder(tmp_path / "same.safetensors").identity() == first
    assert load_encoder(tmp_path / "later.safetensors").identity() != first


def test_it_knows_the_images_it_was_trained_on_unless_it_was_imported(path: Path) -> None:
    encoder = load_encoder(path)
    assert encoder.training_data().path == "photos"
    encoder.meta = encoder.meta.but(imported=Imported(layout="timm"))
    with pytest.raises(SpecError, match="training images"):
        encoder.training_data()


def test_a_missing_weight_or_one_too_many_is_refused(path: Path, tmp_path: Path) -> None:
    facts, tensors = read(path / "checkpoints" / "step-000000002.safetensors")
    name = next(key for key in tensors if key.startswith(facts.encoder))
    write(tmp_path / "more.safetensors", {**tensors, f"{facts.encoder}odd": torch.zeros(1)}, facts)
    write(tmp_path / "less.safetensors", {k: v for k, v in tensors.items() if k != name}, facts)
    with pytest.raises(CheckpointError, match="left over: odd"):
        load_encoder(tmp_path / "more.safetensors")
    with pytest.raises(CheckpointError, match=f"missing: {name.removeprefix(facts.encoder)}"):
        load_encoder(tmp_path / "less.safetensors")


def test_the_mask_token_of_a_run_that_hid_patches_is_not_part_of_its_encoder(path: Path, tmp_path: Path) -> None:
    facts, tensors = read(path / "checkpoints" / "step-000000002.safetensors")
    write(tmp_path / "masked.safetensors", {**tensors, f"{facts.encoder}mask_token": torch.zeros(1, 8)}, facts)
    masked, plain = load_encoder(tmp_path / "masked.safetensors").backbone, load_encoder(path).backbone
    assert masked.state_dict().keys() == plain.state_dict().keys()
