"""Rows on their way into a file: what was made safe is there after a kill, all else is cut off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sslctl.errors import MachineError
from sslctl.evaluate.features.journal import HEADER, Spool
from sslctl.evaluate.features.stream import Chunk

from ...disk import files_up_to


def chunk(done: int, first: int, rows: int, bad: tuple[int, ...] = ()) -> Chunk:
    x = torch.arange(first * 3, (first + rows) * 3, dtype=torch.float32).view(rows, 3)
    return Chunk(x=x, positions=list(range(first, first + rows)), bad=[(i, "broken") for i in bad], done=done)


def killed(spool: Spool) -> None:
    """Give up the files without a word, as a process that is gone does."""
    spool.close()


def test_rows_and_journal_become_the_file_and_nothing_else_is_left(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "f.bin", "key")
    spool.add(chunk(2, 0, 2))
    spool.add(chunk(4, 2, 1, bad=(3,)))
    assert (spool.rows, spool.done, spool.bad, spool.row_bytes) == (3, 4, [(3, "broken")], 12)
    assert np.array_equal(spool.rows_on_disk(), np.arange(9, dtype=np.float32).reshape(3, 3))
    spool.seal(b"h" * HEADER, b"tail")
    content = (tmp_path / "f.bin").read_bytes()
    assert content[:HEADER] == b"h" * HEADER and content[-4:] == b"tail"
    assert np.frombuffer(content[HEADER:-4], "<f4").tolist() == list(range(9))
    assert [path.name for path in tmp_path.iterdir()] == ["f.bin"]


def test_a_killed_pass_goes_on_from_what_was_made_safe(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "f.bin", "key")
    spool.add(chunk(2, 0, 2, bad=(1,)))
    spool.commit()
    spool.add(chunk(4, 2, 2, bad=(3,)))
    killed(spool)
    again = Spool(tmp_path / "f.bin", "key")
    assert (again.done, again.rows, again.shape, again.bad) == (2, 2, (3,), [(1, "broken")])
    again.add(chunk(4, 2, 2, bad=(3,)))
    assert again.rows_on_disk()[:, 0].tolist() == [0, 3, 6, 9] and len(again.bad) == 2
    again.remove()


def test_what_is_kept_is_there_next_time_and_another_key_begins_anew(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "f.bin", "key")
    spool.add(chunk(2, 0, 2))
    spool.keep()
    kept = Spool(tmp_path / "f.bin", "key")
    assert kept.rows == 2
    kept.keep()
    other = Spool(tmp_path / "f.bin", "another key")
    assert (other.rows, other.done, other.bad) == (0, 0, [])
    other.remove()


@pytest.mark.parametrize(
    "tail", ['{"done": 4, "rows": 4, "sh', '{"done": 1, "rows": 9000, "shape": [3], "bad": []}\n', "[]\n", "\x00\n"]
)
def test_lines_that_cannot_be_relied_on_are_left_out(tmp_path: Path, tail: str) -> None:
    spool = Spool(tmp_path / "f.bin", "key")
    spool.add(chunk(2, 0, 2))
    spool.keep()
    with spool.journal_file.open("a") as file:
        file.write(tail)
    again = Spool(tmp_path / "f.bin", "key")
    assert (again.done, again.rows) == (2, 2)
    again.add(chunk(3, 2, 1))
    assert again.rows_on_disk().shape == (3, 3)
    again.remove()


def test_a_second_process_is_refused_and_a_full_disk_is_told(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "f.bin", "key")
    with pytest.raises(MachineError):
        Spool(tmp_path / "f.bin", "key")
    with files_up_to(HEADER + 100), pytest.raises(MachineError, match=r"f\.bin"):
        spool.add(chunk(5000, 0, 5000))
        spool.commit()
        spool.seal(bytes(HEADER))
    spool.remove()


def test_a_header_of_another_length_is_a_bug_of_ours(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "f.bin", "key")
    with pytest.raises(ValueError, match="a header of 3 bytes"):
        spool.seal(b"abc")
    spool.remove()
