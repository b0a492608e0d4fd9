"""Whole files or none."""

import os

import pytest

from sslctl.errors import MachineError
from sslctl.files import sweep, write_atomically

from .disk import files_up_to


def test_replaces_content_and_honours_the_umask(tmp_path):
    target = tmp_path / "deep" / "file.bin"
    old = os.umask(0o027)
    try:
        write_atomically(target, b"one")
        write_atomically(target, b"two")
    finally:
        os.umask(old)
    assert target.read_bytes() == b"two"
    assert target.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in target.parent.iterdir()] == ["file.bin"]


def test_a_refusing_disk_leaves_the_old_file_and_no_debris(tmp_path):
    target = tmp_path / "file.bin"
    write_atomically(target, b"old")
    with files_up_to(1000), pytest.raises(MachineError, match=r"cannot write .*file\.bin: File too large"):
        write_atomically(target, bytes(2000))
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_sweep_removes_what_a_kill_left(tmp_path):
    (tmp_path / ".last.safetensors.part-123").write_bytes(b"half")
    (tmp_path / "last.safetensors").write_bytes(b"whole")
    assert sweep(tmp_path) == [".last.safetensors.part-123"]
    assert [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]
