"""``sslctl pca``, ``neighbours`` and ``projection`` on a tiny run: files, JSON, broken images, wrong words."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from .calling import COLOURS, call, result, write_images


def test_pca(flags_vit: Path, flags: Path, tmp_path: Path) -> None:
    found = result("pca", flags_vit, flags / "red", "--out", tmp_path / "pca", "--size", "64")
    assert len(found["images"]) == 8 and found["area"] == 64
    assert all(Path(entry["files"][0]).is_file() and 0 < entry["foreground"] < 1 for entry in found["images"])
    first, *three = [found["explained"]["first"], *found["explained"]["colours"]]
    assert 0 < first <= 1 and len(three) == 3 and sum(three) <= 1 + 1e-6
    with Image.open(found["sheet"]) as sheet:
        assert sheet.width == 8 * 164 + 4


def test_neighbours_know_colours_and_name_what_cannot_be_read(flags_vit: Path, flags: Path, tmp_path: Path) -> None:
    found = result("neighbours", flags_vit, flags, "--out", tmp_path / "near.png", "--rows", "3", "--k", "5")
    assert [len(entry["neighbours"]) for entry in found["queries"]] == [5] * 3
    assert {entry["class"] for entry in found["queries"]} == set(COLOURS)
    assert found["same_class"] > 0.9  # the colours of these pictures are all there is
    assert all(n["image"] != entry["image"] for entry in found["queries"] for n in entry["neighbours"])
    assert (tmp_path / "near.png").is_file()
    other = write_images(tmp_path / "mine", ["green"], 1)
    (other / "green" / "z.png").write_bytes(b"\x89PNG")
    done = call("neighbours", flags_vit, flags, "--queries", other, "--out", tmp_path / "b.png", "--json")
    assert done.exit_code == 3 and "z.png" in done.stderr
    told = json.loads(done.stdout)
    assert [entry["class"] for entry in told["queries"]] == ["green"] and told["same_class"] > 0.6
    alone = call("neighbours", flags_vit, flags / "red" / "0.png", "--out", tmp_path / "c.png")
    assert alone.exit_code == 3 and "no neighbour" in alone.stderr and not (tmp_path / "c.png").exists()


def test_projection(flags_vit: Path, flags: Path, tmp_path: Path) -> None:
    found = result("projection", flags_vit, flags, "--out", tmp_path / "map.html", "--most", "12")
    assert found["images"] == 12 and found["about"].startswith("PCA, ")
    page = (tmp_path / "map.html").read_text("utf-8")
    assert page.count("data:image/jpeg;base64,") == 1 and '"classes"' in page
    done = call("projection", flags_vit, flags, "--by", "tsne")
    assert done.exit_code == 2 and "--by pca or umap" in done.stderr
