"""Maps in Python: what is written, in typed results; scores and films are tested from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import sslctl


def test_pca_paints_every_image_and_a_sheet(run: Path, colours: Path, tmp_path: Path) -> None:
    found = sslctl.pca(run, colours / "red", out=tmp_path / "pca", size=64)
    assert len(found.images) == 10 and found.area == 64 and not found.failed
    assert all(Path(one.files[0]).is_file() and 0 < (one.foreground or 0) < 1 for one in found.images)
    assert 0 < found.explained.first <= 1 and len(found.explained.colours) == 3
    assert sum(found.explained.colours) <= 1 + 1e-6
    with Image.open(found.sheet) as sheet:
        assert sheet.width == 8 * 164 + 4


def test_attention_maps_name_their_files_and_take_a_loaded_encoder(run: Path, colours: Path, tmp_path: Path) -> None:
    encoder = sslctl.load(run)
    steps: list[tuple[str, int, int]] = []
    found = sslctl.attn_map(
        encoder, colours / "red", out=tmp_path / "maps", pictures=["overlay"], progress=lambda *step: steps.append(step)
    )
    assert (found.kind, found.arch, len(found.images or [])) == ("grad-cam", "resnet18", 10)
    assert [done for _, done, _ in steps] == list(range(1, 11)) and steps[0][0].startswith("grad-cam of resnet18")
    assert all(Path(file).is_file() for one in found.images or [] for file in one.files)
    with pytest.raises(sslctl.SpecError, match="colour: no such option"):
        sslctl.attn_map(encoder, colours, colour="red")  # type: ignore[call-arg]
