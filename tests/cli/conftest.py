"""What several tests of commands share: a few coloured pictures, and a tiny ViT trained on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from .calling import COLOURS, tiny_vit, write_images


@pytest.fixture(scope="session")
def flags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of each colour in class folders."""
    return write_images(tmp_path_factory.mktemp("data") / "flags", list(COLOURS), 8)


@pytest.fixture(scope="session")
def flags_vit(flags: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps on ``flags``."""
    return tiny_vit(flags, tmp_path_factory.mktemp("runs") / "vit")
