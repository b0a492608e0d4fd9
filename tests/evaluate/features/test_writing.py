"""Embeddings in a file: the features of evaluation, whole or not there, the same bytes after any interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import parquet
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from typer.testing import CliRunner

from sslctl.cli.main import app
from sslctl.data.source import FileSource
from sslctl.errors import DataError, MachineError
from sslctl.evaluate.features import files as embed_files
from sslctl.evaluate.features import journal as spool
from sslctl.evaluate.features.extract import extract
from sslctl.evaluate.features.journal import HEADER, Spool
from sslctl.evaluate.features.stream import Chunk, stream
from sslctl.evaluate.features.writing import Order, WrittenFeatures, write_features
from sslctl.views.evaluation import EvalTransform

from ...training import picture_folder

ROOT = Path(__file__).parents[3]
transform = EvalTransform(16, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
FORMS = ("npy", "safetensors", "parquet")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures in two classes; the fourth and the last two cannot be read."""
    folder = picture_folder(tmp_path_factory.mktemp("pictures"))
    for name in ("class1/003.jpg", "class0/018.jpg", "class1/019.png"):
        (folder / name).write_bytes(b"no picture")
    return folder


@pytest.fixture
def source(pictures: Path) -> FileSource:
    names = sorted(str(path.relative_to(pictures)) for path in pictures.rglob("*.*"))
    return FileSource(
        "pictures", str(pictures), names, np.array([name[5] == "1" for name in names], np.int64), ["a", "b"]
    )


class Net(nn.Module):
    """(B, 3, 16, 16) -> (B, 6), or (B, 6, 4, 4); ``stop`` is raised instead of batch number ``at``."""

    def __init__(self, grid: bool = False, at: int = -1, stop: type[BaseException] = KeyboardInterrupt) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 6, 4, 4)
        self.grid, self.left, self.stop = grid, at, stop

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left == -1:
            raise self.stop
        maps: Tensor = self.conv(x)
        return maps if self.grid else maps.mean((2, 3))


def write(net: Net, source: FileSource, out: Path, key: str = "k", **more: Any) -> WrittenFeatures:
    order = Order(out, out.suffix[1:], key, {"features": "pooled"})
    return write_features(net, source, transform, order, batch_size=3, **more)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_npy_holds_the_features_of_evaluation_and_names_lie_beside(source: FileSource, tmp_path: Path) -> None:
    done = write(Net(), source, tmp_path / "x.npy")
    taken = extract(Net(), source, transform, batch_size=3)
    assert torch.equal(torch.from_numpy(np.load(tmp_path / "x.npy", mmap_mode="r").copy()), taken.x)
    assert np.array_equal(np.load(tmp_path / "x.npy"), taken.x.numpy())
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == [source.item_name(i) for i in taken.index.tolist()]
    assert [line["label"] for line in lines] == ["ab"[i] for i in taken.labels.tolist()]
    assert (done.images, done.shape, done.before) == (17, (6,), 0)
    assert done.skipped == taken.unreadable and len(done.skipped) == 3
    assert files(tmp_path).keys() == {"x.npy", "x.jsonl"}


@pytest.mark.parametrize("grid", [False, True])
def test_safetensors_and_parquet_hold_the_same(
    source: FileSource, tmp_path: Path, grid: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = extract(Net(grid), source, transform, batch_size=3)
    monkeypatch.setattr(embed_files, "GROUP", 5 * taken.x[0].nbytes)
    for form in FORMS[1:]:
        write(Net(grid), source, tmp_path / f"x.{form}")
    tensors = load_file(tmp_path / "x.safetensors")
    assert tensors.keys() == {"features", "index", "labels"}
    assert torch.equal(tensors["features"], taken.x)
    assert torch.equal(tensors["index"], taken.index) and torch.equal(tensors["labels"], taken.labels)
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert json.loads(file.metadata()["sslctl"]) == {"features": "pooled"}
    table = parquet.read_table(tmp_path / "x.parquet")
    assert np.array_equal(np.array(table["features"].to_pylist(), np.float32), taken.x.flatten(1).numpy())
    assert table["name"].to_pylist() == [source.item_name(i) for i in taken.index.tolist()]
    assert table["label"].to_pylist() == ["ab"[i] for i in taken.labels.tolist()]
    assert table["index"].to_pylist() == taken.index.tolist()
    assert json.loads(table.schema.metadata[b"sslctl"])["shape"] == list(taken.x.shape[1:])
    assert parquet.ParquetFile(tmp_path / "x.parquet").num_row_groups == 4  # of 17 rows, 5 in a group


@pytest.mark.parametrize("form", FORMS)
def test_a_pass_that_was_stopped_anywhere_ends_in_the_same_bytes(source: FileSource, tmp_path: Path, form: str) -> None:
    write(Net(), source, tmp_path / "whole" / f"x.{form}")
    for at in range(6):  # of seven batches the last has nothing to read
        out = tmp_path / f"at{at}" / f"x.{form}"
        with pytest.raises(KeyboardInterrupt):
            write(Net(at=at), source, out)
        assert not out.exists()
        done = write(Net(), source, out)
        assert done.before == 3 * max(0, at - 1)  # the batch before the fatal one was on its way
        assert files(out.parent) == files(tmp_path / "whole")


@pytest.mark.parametrize("harm", ["torn line", "lost rows", "more rows", "no rows", "no journal", "text"])
def test_what_a_power_cut_left_is_believed_as_far_as_it_goes(
    source: FileSource, tmp_path: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "INTERVAL", 0.0)
    write(Net(), source, tmp_path / "whole" / "x.npy")
    out = tmp_path / "cut" / "x.npy"
    with pytest.raises(KeyboardInterrupt):
        write(Net(at=4), source, out)
    rows, journal = out.with_name(".x.npy.rows"), out.with_name(".x.npy.journal")
    lines = journal.read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["done"] for line in lines[1:]] == [3, 6, 9, 9]
    if harm == "torn line":
        journal.write_bytes(b"".join(lines)[:-20])
    elif harm == "lost rows":
        os.truncate(rows, HEADER + 4 * 24)
    elif harm == "more rows":
        rows.write_bytes(rows.read_bytes() + b"garbage")
    elif harm == "text":
        journal.write_bytes(lines[0] + b"nonsense\n" + b"".join(lines[1:]))
    else:
        (rows if harm == "no rows" else journal).unlink()
    done = write(Net(), source, out)
    assert done.before == {"torn line": 9, "lost rows": 3, "more rows": 9}.get(harm, 0)
    assert files(out.parent) == files(tmp_path / "whole")


def test_another_order_does_not_go_on(source: FileSource, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(Net(at=4), source, tmp_path / "x.npy", key="other weights")
    assert write(Net(), source, tmp_path / "x.npy").before == 0
    assert files(tmp_path).keys() == {"x.npy", "x.jsonl"}


def test_two_at_once_are_one_too_many(source: FileSource, tmp_path: Path) -> None:
    held = Spool(tmp_path / "x.npy", "k")
    with pytest.raises(MachineError, match="another process"):
        write(Net(), source, tmp_path / "x.npy")
    held.close()
    write(Net(), source, tmp_path / "x.npy")


def test_a_picture_that_may_not_be_missing_leaves_nothing_behind(source: FileSource, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not an image"):
        write(Net(), source, tmp_path / "x.npy", fail_on_bad=True)
    with pytest.raises(DataError, match="none of the 2 images"):
        write(Net(), source.take(np.array([9, 19])), tmp_path / "x.npy")
    assert files(tmp_path) == {}


def test_a_full_disk_keeps_what_is_done(source: FileSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add: Callable[[Spool, Chunk], None] = Spool.add

    def full(self: Spool, chunk: Chunk) -> None:
        if chunk.done > 9:
            raise self._refused(OSError(28, "No space left on device"))
        add(self, chunk)

    monkeypatch.setattr(Spool, "add", full)
    with pytest.raises(MachineError, match="No space left") as caught:
        write(Net(), source, tmp_path / "x.npy")
    assert "goes on" in caught.value.hint
    monkeypatch.undo()
    assert write(Net(), source, tmp_path / "x.npy").before == 9


def test_a_pass_reads_no_more_than_it_needs(source: FileSource, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    plain = FileSource.read
    monkeypatch.setattr(FileSource, "read", lambda self, i: (read.append(i), plain(self, i))[1])
    for chunk in stream(Net(), source, transform, batch_size=2):
        assert chunk.done <= len(read) <= chunk.done + 2  # one batch ahead


def call(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in ("embed", "random:resnet10t", *words, "--workers", "0")])


def test_from_the_command_line_on_a_folder_without_labels(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "x.npy"
    done = call(pictures / "class1", "--out", out, "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["images"], said["shape"], said["format"]) == (8, [8, 512], "npy")
    assert [Path(entry["image"]).name for entry in said["skipped"]] == ["003.jpg", "019.png"]
    assert "2 of 10 images cannot be read" in done.stderr
    lines = [json.loads(line) for line in Path(said["names"]).read_text().splitlines()]
    assert len(lines) == 8 and {line["label"] for line in lines} == {None}
    again = call(pictures / "class1", "--out", out)
    assert again.exit_code == 2 and "--force" in again.stderr
    replaced = call("--data", pictures / "class1", "--out", out, "--features", "patches", "--force")
    assert replaced.exit_code == 0 and replaced.stdout == f"{out}\n"
    assert np.load(out).shape == (8, 512, 6, 6)  # of 176 px
    strict = call(pictures / "class1", "--out", tmp_path / "y.npy", "--bad-images", "fail")
    assert strict.exit_code == 3 and "003.jpg" in strict.stderr and not (tmp_path / "y.npy").exists()


def test_words_that_cannot_be_meant(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = ("--out", tmp_path / "x.npy")
    for words, message in [
        ((pictures,), "missing --out"),
        ((pictures, "--data", pictures, *out), "given already"),
        ((pictures, "--out", tmp_path / "x.nyp"), "did you mean 'npy'"),
        ((pictures, *out, "--split", "test"), "--split 'test'"),
        ((pictures, *out, "--features", "last-2"), "no class token"),
        ((pictures, *out, "--features", "mid"), "--features 'mid'"),
        (out, "give --data"),
    ]:
        done = call(*words)
        assert done.exit_code == 2 and message in done.stderr, done.stderr
    monkeypatch.setattr(embed_files, "find_spec", lambda name: None)
    done = call(pictures, "--out", tmp_path / "x.parquet")
    assert done.exit_code == 5 and "pip install 'sslctl[parquet]'" in done.stderr
    assert files(tmp_path) == {}


SLOW = """
import sys, time
from sslctl.evaluate.features import journal
from sslctl.cli.main import main
journal.INTERVAL, add = 0.0, journal.Spool.add
journal.Spool.add = lambda self, chunk: (add(self, chunk), time.sleep(0.1))
main()
"""


def test_a_process_that_was_killed_goes_on_to_the_same_bytes(pictures: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole" / "x.npy", tmp_path / "killed" / "x.npy"
    assert call(pictures, "--batch-size", "2", "--out", whole).exit_code == 0
    words = ["embed", "random:resnet10t", str(pictures), "--batch-size", "2", "--workers", "0", "--out", str(out)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", SLOW, *words], env=env, stderr=subprocess.DEVNULL) as process:
        journal = out.with_name(".x.npy.journal")
        while process.poll() is None and (not journal.exists() or len(journal.read_bytes().splitlines()) < 4):
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL and not out.exists()
    done = call(pictures, "--batch-size", "2", "--out", out, "--json")
    assert 6 <= json.loads(done.stdout)["before"] < 20
    assert files(out.parent) == files(whole.parent)
