"""Images that the tests make themselves."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslctl.data.folder import open_folder
from sslctl.data.source import FileSource

from .loading import N

MakeImage = Callable[..., np.ndarray]


@pytest.fixture
def image() -> MakeImage:
    """image(path, seed, size) writes a noise image without loss and returns its pixels (H, W, 3)."""

    def make(path: str | bytes | Path, seed: int = 0, size: tuple[int, int] = (8, 6)) -> np.ndarray:
        width, height = size
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        folder = os.path.dirname(os.fsencode(path))
        os.makedirs(folder, exist_ok=True)
        with open(path, "wb") as file:
            Image.fromarray(pixels).save(file, "PNG")
        return pixels

    return make


@pytest.fixture
def files(tmp_path: Path, image: MakeImage) -> FileSource:
    for i in range(N):
        image(tmp_path / f"c{i % 3}" / f"{i:02}.png", i, (6 + i % 5, 5 + i % 3))
    return open_folder(str(tmp_path), "train")
