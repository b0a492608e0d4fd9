"""Neighbours and projections of a tiny run: pictures, results, what cannot be read, wrong words."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import sslctl

from ..cli.calling import COLOURS, call, write_images


def test_neighbours_share_colours_and_what_cannot_be_read_is_named(run: Path, colours: Path, tmp_path: Path) -> None:
    found = sslctl.neighbours(run, colours, out=tmp_path / "near.png", rows=3, k=5)
    assert [len(query.neighbours) for query in found.queries] == [5] * 3
    assert {query.label for query in found.queries} == set(COLOURS)
    assert found.same_class is not None and found.same_class > 0.9  # colours are all that these pictures have
    assert all(near.image != query.image for query in found.queries for near in query.neighbours)
    with Image.open(tmp_path / "near.png") as sheet:
        assert sheet.width > 5 * 96
    mine = write_images(tmp_path / "mine", ["green"], 1)
    (mine / "green" / "z.png").write_bytes(b"\x89PNG")
    notes: list[str] = []
    other = sslctl.neighbours(run, colours, queries=mine, out=tmp_path / "b.png", notes=notes.append)
    assert [query.label for query in other.queries] == ["green"] and (other.same_class or 0) > 0.6
    assert [Path(one.image).name for one in other.failed] == ["z.png"] and any("z.png" in note for note in notes)
    done = call("neighbours", run, colours, "--queries", mine, "--out", tmp_path / "b.png", "--json")
    assert done.exit_code == 3 and done.stdout == other.model_dump_json() + "\n"
    with pytest.raises(sslctl.DataError, match="no neighbour"):
        sslctl.neighbours(run, colours / "red" / "0.png", out=tmp_path / "c.png")
    assert not (tmp_path / "c.png").exists()


def test_a_projection_is_one_page(run: Path, colours: Path, tmp_path: Path) -> None:
    found = sslctl.projection(run, colours, out=tmp_path / "map.html", most=12)
    assert found.images == 12 and found.about.startswith("PCA, ")
    page = (tmp_path / "map.html").read_text("utf-8")
    assert page.count("data:image/jpeg;base64,") == 1 and '"classes"' in page
    with pytest.raises(sslctl.SpecError, match="tsne") as error:
        sslctl.projection(run, colours, by="tsne")
    assert error.value.hint == "--by pca or umap"
