"""``sslctl data``: a folder described, packed, and trained on; what cannot be read and what is there twice is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslctl.data import open_source

from .calling import call, result


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five pictures of two classes, of which one is there twice, and one file that is none."""
    rng = np.random.default_rng(0)
    for i in range(5):
        path = tmp_path / "photos" / ("cats", "dogs")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40 + i, 60, 3), dtype=np.uint8)).save(path)
    (tmp_path / "photos/dogs/again.png").write_bytes((tmp_path / "photos/cats/0.png").read_bytes())
    (tmp_path / "photos/cats/broken.jpg").write_bytes(b"<html>")
    return tmp_path / "photos"


def test_info_says_what_is_there(photos: Path) -> None:
    found = result("data", "info", photos)
    assert found["images"] == 7 and found["classes"] == {"cats": 4, "dogs": 3}
    assert found["widths"] == [60, 60, 60] and found["heights"] == [40, 41, 44]
    assert [Path(bad["name"]).name for bad in found["unreadable"]] == ["broken.jpg"]
    assert [[Path(name).name for name in same] for same in found["duplicates"]] == [["0.png", "again.png"]]
    assert found["fingerprint"] == open_source(str(photos)).fingerprint()
    text = call("data", "info", photos).stdout
    assert "7 images" in text and "cats 4, dogs 3" in text and "broken.jpg: not an image" in text


def test_only_decoding_finds_what_is_broken_behind_its_header(photos: Path) -> None:
    path = photos / "cats/2.png"
    path.write_bytes(path.read_bytes()[:2000])
    bad = [
        json.loads(call("data", "info", photos, "--json", *more).stdout)["unreadable"] for more in ([], ["--decode"])
    ]
    assert [len(part) for part in bad] == [1, 2] and "truncated" in bad[1][0]["reason"] + bad[1][1]["reason"]


def test_pack_writes_what_data_reads(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "photos.pack"
    done = call("data", "pack", photos, "--size", 32, "--out", out, "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["pack"] == str(out) and found["images"] == 7 and found["bytes"] == out.stat().st_size
    assert [Path(bad["name"]).name for bad in found["unreadable"]] == ["broken.jpg"]
    assert "warning: " in done.stderr and "broken.jpg" in done.stderr
    pack = open_source(str(out))
    assert pack.classes == ["cats", "dogs"] and pack.read(0).shape == (32, 48, 3)
    described = result("data", "info", out)
    assert described["images"] == 7 and described["heights"][2] == 32 and len(described["unreadable"]) == 1
    assert len(described["duplicates"]) == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--size", "32", "--out", "photos.npz"], 2, "a pack's name ends in .pack"),
        (["--size", "32", "--out", "there.pack"], 2, "exists"),
        (["--size", "32", "--out", "a.pack", "--split", "dev"], 2, "no such part"),
        (["--size", "4", "--out", "a.pack"], 2, "greater than or equal to 8"),
    ],
)
def test_what_pack_refuses(
    photos: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(photos.parent)
    Path("there.pack").write_bytes(b"mine")
    done = call("data", "pack", photos, *words)
    assert done.exit_code == code and message in done.stderr
    assert Path("there.pack").read_bytes() == b"mine"
