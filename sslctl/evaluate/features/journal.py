"""Rows on their way into a file: written as they come, with a journal from which a killed pass goes on."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...errors import MachineError
from ...files import put, refused
from .stream import Chunk, Unreadable

HEADER = 4096
"""Bytes before the first row, kept free for the header of the finished file."""
INTERVAL = 5.0  # seconds of work that a kill can cost

SCHEMA = 1


class Spool:
    """Float32 rows of one shape for the file ``out``, in ``.NAME.rows`` beside it; ``.NAME.journal`` says how many.

    A line of the journal holds what was true when it was written: images done, rows, their shape, unreadable images
    since the line before. Rows reach the disk before it does, so what the last whole line says can be relied on and all
    else is cut off. The first line is ``key``, what the rows depend on; with another one the pass starts over.
    """

    def __init__(self, out: Path, key: str) -> None:
        self.out = out
        self.rows_file = out.with_name(f".{out.name}.rows")
        self.journal_file = out.with_name(f".{out.name}.journal")
        self.done = 0
        self.rows = 0
        self.shape: tuple[int, ...] = ()
        self.bad: Unreadable = []
        self._told = 0  # of bad
        self._since = time.monotonic()
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            self._rows: IO[bytes] = os.fdopen(os.open(self.rows_file, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
            self._lock()
            self._journal: IO[str] = self.journal_file.open("a+", encoding="utf-8")
            self._recall(key)
        except OSError as e:
            raise self._refused(e) from e

    @property
    def row_bytes(self) -> int:
        return 4 * int(np.prod(self.shape))

    def add(self, chunk: Chunk) -> None:
        """Append a chunk; every INTERVAL seconds all so far is made safe. MachineError where the disk refuses."""
        try:
            if chunk.positions:
                self.shape = tuple(chunk.x.shape[1:])
                self._rows.write(_bytes_of(chunk.x))
                self.rows += len(chunk.x)
            self.bad += chunk.bad
            self.done = chunk.done
            if time.monotonic() - self._since >= INTERVAL:
                self.commit()
        except OSError as e:
            raise self._refused(e) from e

    def commit(self) -> None:
        """Make safe what was added: whatever happens now, the pass goes on from here."""
        line = {"done": self.done, "rows": self.rows, "shape": self.shape, "bad": self.bad[self._told :]}
        for file in (self._rows, self._journal):
            if file is self._journal:
                self._journal.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._told = len(self.bad)
        self._since = time.monotonic()

    def seal(self, header: bytes, tail: bytes = b"") -> None:
        """Make ``out`` of the rows, between ``header`` and ``tail``: at once, with everything on the disk."""
        if len(header) != HEADER:
            raise ValueError(f"a header of {len(header)} bytes")
        try:
            self._rows.write(tail)
            self._rows.seek(0)
            self._rows.write(header)
            self._rows.flush()
            put(self.rows_file, self.out)
        except OSError as e:
            raise self._refused(e) from e
        self.remove()

    def rows_on_disk(self) -> NDArray[np.float32]:
        """Return the rows (n, ...), mapped into memory."""
        self.commit()
        return np.memmap(self.rows_file, "<f4", "r", HEADER, (self.rows, *self.shape))

    def remove(self) -> None:
        """Leave nothing behind but ``out``."""
        self.close()
        for path in (self.rows_file, self.journal_file):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def keep(self) -> None:
        """Leave all that was added for the next time, as far as the disk lets it."""
        with contextlib.suppress(OSError):
            self.commit()
        self.close()

    def close(self) -> None:
        for file in (self._rows, self._journal):
            with contextlib.suppress(OSError):
                file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._rows, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            self._rows.close()
            raise self._busy() from e
        if not self.rows_file.exists() or os.stat(self.rows_file).st_ino != os.fstat(self._rows.fileno()).st_ino:
            self._rows.close()  # it was finished, and renamed, between our opening and our lock
            raise self._busy()

    def _busy(self) -> MachineError:
        return MachineError(f"{self.out} is being written by another process", "wait for it, or another --out")

    def _recall(self, key: str) -> None:
        """Go back to the last line of the journal that the rows bear out, or to the beginning."""
        self._journal.seek(0)
        text = self._journal.read()
        held = os.fstat(self._rows.fileno()).st_size
        first, *rest = text.split("\n")[:-1] or [""]  # what follows the last line end was cut off
        good = _opening(key)
        if first + "\n" == good:
            for line in rest:
                if not self._believe(line, held):
                    break
                good += line + "\n"
        self._journal.truncate(len(good) if text.startswith(good) else 0)
        if not text.startswith(good):
            self._journal.write(good)
            self._journal.flush()
        self._rows.truncate(HEADER + self.rows * self.row_bytes)
        self._rows.seek(0, os.SEEK_END)
        self._told = len(self.bad)

    def _believe(self, text: str, held: int) -> bool:
        try:
            line: dict[str, Any] = json.loads(text)
            shape, rows = tuple(map(int, line["shape"])), int(line["rows"])
            bad = [(int(i), str(reason)) for i, reason in line["bad"]]
            if HEADER + rows * 4 * int(np.prod(shape)) > held or int(line["done"]) < self.done:
                return False
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        self.done, self.rows, self.shape = int(line["done"]), rows, shape
        self.bad += bad
        return True

    def _refused(self, e: OSError) -> MachineError:
        return refused(self.out, e, "make room; the same command goes on")


def _opening(key: str) -> str:
    return json.dumps({"schema": SCHEMA, "key": key, "header": HEADER}) + "\n"


def _bytes_of(x: Tensor) -> memoryview:
    little: memoryview = np.ascontiguousarray(x.numpy(), "<f4").data
    return little.cast("B")
