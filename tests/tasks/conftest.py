"""Coloured pictures and a tiny ResNet trained on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..cli.calling import COLOURS, tiny_resnet, write_images


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures of each colour in class folders."""
    return write_images(tmp_path_factory.mktemp("tasks") / "colours", list(COLOURS), 10)


@pytest.fixture(scope="session")
def run(colours: Path) -> Path:
    """A run of two steps on them."""
    return tiny_resnet(colours, colours.parent / "run")
