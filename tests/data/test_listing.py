"""Lists of paths: plain text, CSV and TSV, with and without header and labels; errors name the line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from sslctl.data.listing import open_listing
from sslctl.errors import DataError

from .conftest import MakeImage


@pytest.fixture
def here(tmp_path: Path, image: MakeImage) -> Path:
    for i, name in enumerate(["a.png", "b.png", "sub/c d.png", "odd, name.png"]):
        image(tmp_path / name, i)
    return tmp_path


def opened(here: Path, name: str, text: str) -> tuple[list[str], list[str] | None]:
    """Names in order, and the class of each."""
    (here / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    source = open_listing(str(here / name))
    labels = None if source.labels is None else [source.classes[label] for label in source.labels]
    return [source.names[i] for i in range(len(source))], labels


@pytest.mark.parametrize(
    ("name", "text", "labels"),
    [
        ("l.txt", "b.png\n\nsub/c d.png\na.png\n", None),
        ("l.txt", "\ufeffb.png\r\nsub/c d.png\r\na.png", None),
        ("l.txt", "b.png dog\nsub/c d.png cat\na.png dog\n", ["dog", "cat", "dog"]),
        ("l.lst", "b.png\tdog\nsub/c d.png\tbig cat\na.png\tdog\n", ["dog", "big cat", "dog"]),
        ("l.csv", "b.png\nsub/c d.png\na.png\n", None),
        ("l.csv", "b.png,dog\nsub/c d.png,cat\na.png,dog\n", ["dog", "cat", "dog"]),
        ("l.csv", "Path,Label\nb.png,dog\nsub/c d.png,cat\na.png,dog\n", ["dog", "cat", "dog"]),
        ("l.csv", 'id;class;image\n1;dog;b.png\n2;"a;b";"sub/c d.png"\n3;dog;a.png\n', ["dog", "a;b", "dog"]),
        ("l.tsv", "file\tsize\nb.png\t1\nsub/c d.png\t2\na.png\t3\n", None),
        ("l.csv", "b.png,10\nsub/c d.png,2\na.png,10\n", ["10", "2", "10"]),
    ],
)
def test_forms_of_a_list(here: Path, name: str, text: str, labels: list[str] | None) -> None:
    assert opened(here, name, text) == (["b.png", "sub/c d.png", "a.png"], labels)


def test_quotes_absolute_paths_and_repeats(here: Path) -> None:
    names, labels = opened(here, "l.csv", f'"odd, name.png",x\n{here}/a.png,y\n{here}/a.png,y\n')
    assert names == ["odd, name.png", f"{here}/a.png", f"{here}/a.png"] and labels == ["x", "y", "y"]


def test_images_are_read_in_the_order_of_the_list(here: Path, image: MakeImage) -> None:
    (here / "l.txt").write_text("sub/c d.png\na.png\n")
    source = open_listing(str(here / "l.txt"))
    assert np.array_equal(source.read(0), image(here / "again.png", 2))
    assert np.array_equal(source.read(1), image(here / "again.png", 0))


def test_numbers_as_labels_keep_their_order(here: Path) -> None:
    (here / "l.csv").write_text("a.png,10\nb.png,2\n")
    source = open_listing(str(here / "l.csv"))
    assert source.classes == ["2", "10"] and source.labels is not None and source.labels.tolist() == [1, 0]


def test_names_that_are_no_utf8(here: Path, image: MakeImage) -> None:
    pixels = image(os.fsencode(here) + b"/caf\xe9.png", 9)
    (here / "l.txt").write_bytes(b"caf\xe9.png\n")
    source = open_listing(str(here / "l.txt"))
    assert np.array_equal(source.read(0), pixels) and source.item_name(0).endswith(r"caf\xe9.png")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "l.txt",
            "a.png\nb.png\n\ngone.png\nalso gone.png\n",
            r"line 4: 'gone\.png' is no file \(2 of 4 paths",
        ),
        ("l.csv", "path,label\na.png,x\ngone.png,y\n", r"line 3: 'gone\.png' is no file"),
        ("l.csv", "path,label\na.png,x\nsub,y\n", r"line 3: 'sub' is no file"),
        ("l.csv", "path,label\na.png,x\nb.png,\n", "line 3: no label"),
        ("l.csv", "path,label\na.png,x\nb.png\n", "line 3: no label"),
        ("l.csv", "path,label\n,x\n", "line 2: no path"),
        ("l.csv", "path,label\n", "a header and no rows"),
        ("l.csv", "\n\n", "lists no images"),
        ("l.txt", "", "lists no images"),
        ("l.csv", "foto,klasse,x\na.png,x,1\n", "3 columns and none is called path: foto, klasse, x"),
        ("l.csv", 'a.png,"x\n', "is no CSV"),
        ("l.txt", "nul\0.png\n", "line 1"),
    ],
)
def test_errors_name_the_line(here: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        opened(here, name, text)
    assert caught.value.hint
