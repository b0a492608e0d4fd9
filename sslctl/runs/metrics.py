"""The metric lines of a run: the one reader and the one writer of metrics.jsonl, and of files like it."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import IO, Any, Self

from ..files import write_atomically

FILE = "metrics.jsonl"
Line = dict[str, Any]


def read_objects(path: Path) -> list[Line]:
    """Return the JSON objects in ``path``, one a line, without lines that are cut off or something else.

    Empty where the file is missing.
    """
    objects: list[Any] = []
    with contextlib.suppress(OSError):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                objects.append(json.loads(line))
    return [item for item in objects if isinstance(item, dict)]


def read_metrics(folder: Path, upto: float = math.inf) -> list[Line]:
    """Return the metric lines in the run directory ``folder``, those of steps up to ``upto``."""
    lines = read_objects(folder / FILE)
    return [line for line in lines if type(line.get("step")) is int and line["step"] <= upto]


def is_number(value: Any) -> bool:
    """Return whether ``value`` is a finite number that a float can hold."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


class Metrics:
    """The writer of a run's metric lines; nothing is written before ``start``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, step: int = -1) -> None:
        """Open the file, without the lines of steps after ``step``, which will be written again."""
        lines = read_metrics(self.folder, step)
        write_atomically(self.folder / FILE, "".join(map(_text, lines)).encode())
        self._file = (self.folder / FILE).open("a", encoding="utf-8")

    def append(self, line: Line) -> None:
        """Write one line; a full disk does not stop training."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.write(_text(line))
                self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _text(line: Line) -> str:
    return json.dumps(line, allow_nan=False) + "\n"
