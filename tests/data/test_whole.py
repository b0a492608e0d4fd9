"""Images in memory: handed over whole, or cropped by loader processes; JPEGs reduced as the views of a run allow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from sslctl.data.in_memory import in_batches
from sslctl.data.loader import Loader
from sslctl.data.source import ArraySource
from sslctl.engine.setup import open_inputs
from sslctl.methods.resolve import resolve
from sslctl.views.augment import Augment
from sslctl.views.recipe import IMAGENET_MEAN, IMAGENET_STD, ViewPlan, ViewSpec

CPU = torch.device("cpu")


@pytest.mark.parametrize(("side", "whole"), [(32, True), (80, True), (96, False)])
def test_a_cpu_takes_small_images_alone_in_whole_batches(side: int, whole: bool) -> None:
    source = ArraySource("set", np.zeros((4, side, side, 3), np.uint8))
    assert in_batches(source, CPU) is whole and in_batches(source, torch.device("meta"))


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_processes_crop_what_is_in_memory(workers: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, (10, 24, 30, 3), dtype=np.uint8)
    source = ArraySource("set", array, np.arange(10) % 2, ["a", "b"])
    augment = Augment(ViewPlan((ViewSpec(size=16),) * 2, (ViewSpec(size=8),), IMAGENET_MEAN, IMAGENET_STD), 3)
    loader = Loader(
        source, augment.geometric, batch_size=5, seed=0, start_step=0, total_steps=3, workers=workers,
        sizes=[16, 16, 8], whole=False,
    )  # fmt: skip
    for batch in loader:
        assert batch.images is None and batch.labels is not None
        for row, (epoch, index) in enumerate(zip(batch.epoch.tolist(), batch.index.tolist(), strict=True)):
            expected = augment.geometric(array[index], epoch, index)
            assert all(torch.equal(view[row], crop) for view, crop in zip(batch.crops, expected, strict=True))
            assert int(batch.labels[row]) == index % 2


@pytest.mark.parametrize(("decode", "side"), [("full", 854), ("reduced", 214)])
def test_a_run_reads_large_jpegs_reduced_where_it_is_told_to(tmp_path: Path, decode: str, side: int) -> None:
    photo = Image.fromarray(load_sample_image("flower.jpg")).resize((1280, 854))
    for i in range(3):
        photo.crop((0, 0, 1280 - i, 854)).save(tmp_path / f"{i}.jpg")
    layer = {
        "data": {"path": str(tmp_path), "decode": decode},
        "views": {"multi_crop": "2x64@0.2-1"},
        "method": {"name": "simclr"},
    }
    inputs = open_inputs(resolve(layer))
    assert inputs.train.read(0).shape[0] == side
    assert any("data.decode=reduced" in note for note in inputs.notes) is (decode == "full")
