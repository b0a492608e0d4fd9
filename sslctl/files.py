"""Whole files or none: written under a temporary name, flushed to disk, renamed."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from .errors import MachineError

LOCK = "run.lock"  # in a directory that one process at a time may write to


@contextlib.contextmanager
def replacing(path: Path, size: int) -> Iterator[Path]:
    """A file to write about ``size`` bytes to; it becomes ``path`` at the end, and vanishes where an error comes first.

    Raises MachineError where the disk refuses.
    """
    partial = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        put(partial, path)
    except OSError as e:
        raise refused(path, e, f"{size >> 20} MiB are needed") from e
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def put(whole: Path, path: Path) -> None:
    """The finished file ``whole``, in the same folder, becomes ``path``: file and folder are flushed to disk."""
    with whole.open("rb") as file:
        os.fsync(file.fileno())
    whole.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def refused(path: Path, e: OSError, when_full: str) -> MachineError:
    """What to tell of a disk that does not take ``path``; ``when_full`` is the hint where there is no room."""
    full = e.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    return MachineError(f"cannot write {path}: {e.strerror}", when_full if full else "see its permissions")


def write_atomically(path: Path, data: bytes) -> None:
    """``path`` holds all of ``data`` or what it held before, whatever happens meanwhile.

    Raises MachineError where the disk refuses.
    """
    with replacing(path, len(data)) as partial:
        partial.write_bytes(data)


def sweep(directory: Path) -> list[str]:
    """Remove what interrupted writes left in ``directory``; their names."""
    left = list(directory.glob(".*.part-*"))
    for path in left:
        with contextlib.suppress(OSError):
            path.unlink()
    return [path.name for path in left]
