"""What setup makes of a spec and the data it points at."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from sslctl.engine.setup import open_inputs
from sslctl.methods.resolve import resolve


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
