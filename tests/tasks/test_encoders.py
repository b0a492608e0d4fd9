"""Encoders in Python: from a path or an object, features of whatever holds images, and the cache that stays true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sslctl
from sslctl.runs.encoder import load_encoder


def test_embed_takes_paths_images_arrays_and_folders_alike(colours: Path, run: Path, tmp_path: Path) -> None:
    encoder = sslctl.load(run)
    assert (encoder.dim, encoder.arch, encoder.transform().size) == (8, "resnet18", 32)
    paths = sorted(colours.glob("red/*.png"))[:3]
    x = encoder.embed(paths)
    assert x.shape == (3, 8) and x.dtype == torch.float32 and not torch.equal(x[0], x[1])
    opened = [Image.open(path) for path in paths]
    arrays = [np.asarray(image) for image in opened]
    for images in (opened, arrays, np.stack(arrays), [opened[0], arrays[1], str(paths[2])]):
        assert torch.equal(encoder.embed(images), x)
    assert torch.equal(encoder.embed(paths[0]), encoder.embed(opened[0]))
    torch.testing.assert_close(encoder.embed(paths[0])[0], x[0])
    whole = encoder.embed(colours)
    assert whole.shape == (30, 8)
    sslctl.embed(encoder, colours, out=tmp_path / "x.npy")
    assert torch.equal(torch.from_numpy(np.load(tmp_path / "x.npy")), whole)


def test_an_image_of_pillow_is_read_as_its_file(run: Path, tmp_path: Path) -> None:
    turned = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    turned.convert("L").save(tmp_path / "grey.png")
    encoder = sslctl.load(run)
    for path in tmp_path.glob("*.png"):
        assert torch.equal(encoder.embed([Image.open(path)]), encoder.embed([path]))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (["red/0.png", np.zeros((4, 4, 3))], "image 1: not an image: float64"),
        ([], "no images"),
        (["red/0.png", "nowhere.png"], "nowhere.png: cannot be opened"),
    ],
)
def test_what_is_not_an_image_is_an_error(
    run: Path, colours: Path, images: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(colours)
    with pytest.raises(sslctl.DataError, match=message):
        sslctl.load(run).embed(images)


def test_a_changed_encoder_neither_reads_nor_writes_stored_features(colours: Path, run: Path) -> None:
    encoder = sslctl.load(load_encoder(run))
    said: list[str] = []
    before = sslctl.knn(encoder, colours, k=3, notes=said.append)
    assert not encoder.changed and before.top1 == sslctl.knn(run, colours, k=3).top1
    with torch.no_grad():
        for p in encoder.backbone.parameters():
            p.zero_()
    after = sslctl.knn(encoder, colours, k=3, notes=said.append)
    assert encoder.changed and after.top1 < before.top1
    assert "not the score of" in after.notes[-1] and after.notes[-1] in said
    assert sslctl.knn(run, colours, k=3).top1 == before.top1
