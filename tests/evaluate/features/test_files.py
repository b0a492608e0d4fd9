"""The three formats of embeddings, each read by the library it is for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import parquet
from safetensors import safe_open

from sslctl.data.source import ArraySource
from sslctl.errors import MachineError
from sslctl.evaluate.features.files import FORMATS, Form, Rows, seal_npy
from sslctl.evaluate.features.journal import Spool
from sslctl.evaluate.features.stream import Chunk

X = torch.arange(4 * 2 * 3, dtype=torch.float32).view(4, 2, 3)  # maps of features


def written(name: str, out: Path, labelled: bool = True) -> ArraySource:
    """Five images, of which the second cannot be read, in the format ``name``."""
    labels = np.array([0, 1, 1, 0, 1]) if labelled else None
    source = ArraySource("set", np.zeros((5, 2, 2, 3), np.uint8), labels, ["ä", "b"] if labelled else [])
    spool = Spool(out, "key")
    spool.add(Chunk(done=5, positions=[0, 2, 3, 4], x=X, bad=[(1, "broken")]))
    FORMATS[name].seal(spool, Rows(source, {1: "broken"}, {"layer": "map"}))
    return source


def names_beside(out: Path) -> list[dict[str, str | None]]:
    return [json.loads(line) for line in out.with_suffix(".jsonl").read_text("utf-8").splitlines()]


def test_numpy_maps_the_file_and_names_stand_beside(tmp_path: Path) -> None:
    written("npy", tmp_path / "f.npy")
    found = np.load(tmp_path / "f.npy", mmap_mode="r")
    assert found.dtype == np.float32 and np.array_equal(found, X.numpy())
    assert names_beside(tmp_path / "f.npy") == [
        {"name": f"set[{i}]", "label": label} for i, label in ((0, "ä"), (2, "b"), (3, "ä"), (4, "b"))
    ]


@pytest.mark.parametrize("labelled", [True, False])
def test_safetensors_has_positions_and_labels(tmp_path: Path, labelled: bool) -> None:
    written("safetensors", tmp_path / "f.safetensors", labelled)
    with safe_open(tmp_path / "f.safetensors", "pt") as file:
        assert set(file.keys()) == {"features", "index", *(["labels"] if labelled else [])}
        assert torch.equal(file.get_tensor("features"), X) and file.get_tensor("index").tolist() == [0, 2, 3, 4]
        if labelled:
            assert file.get_tensor("labels").tolist() == [0, 1, 0, 1]
        assert json.loads(file.metadata()["sslctl"]) == {"layer": "map"}
    assert (names_beside(tmp_path / "f.safetensors")[0]["label"] is None) is not labelled


def test_parquet_has_a_list_of_fixed_length_a_row(tmp_path: Path) -> None:
    written("parquet", tmp_path / "f.parquet")
    table = parquet.read_table(tmp_path / "f.parquet")
    assert table.column("name").to_pylist()[1] == "set[2]" and table.column("label").to_pylist() == ["ä", "b", "ä", "b"]
    assert table.column("index").to_pylist() == [0, 2, 3, 4]
    assert table.column("features").to_pylist() == X.flatten(1).tolist()
    assert json.loads(table.schema.metadata[b"sslctl"]) == {"layer": "map", "shape": [2, 3]}
    assert [path.name for path in tmp_path.iterdir()] == ["f.parquet"]


def test_a_missing_library_is_named_with_the_line_to_type() -> None:
    with pytest.raises(MachineError, match="needs no_such_module") as refused:
        Form(seal_npy, needs="no_such_module", extra="parquet").require()
    assert refused.value.hint == "pip install 'sslctl[parquet]'"
    FORMATS["parquet"].require()
