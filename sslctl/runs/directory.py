"""A run's directory: names of its files, the lock, the metrics stream, which checkpoints stay."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, MachineError, SpecError
from ..files import LOCK, sweep, write_atomically
from ..spec.parsing import read_spec_file
from ..spec.schema import Data, Spec
from .metrics import Line, Metrics, read_metrics, read_objects

# What changes how a run goes but not what comes out of it: not part of its identity.
INCIDENTAL = {
    "run": (
        "out",
        "checkpoint_every",
        "keep",
        "log_every",
        "max_time",
        "fail_on_collapse",
        "probe_data",
        "probe_every",
        "probe_images",
        "log_to",
    ),
    "data": ("workers", "download"),
}


def identity(spec: Spec) -> Data:
    """Return the part of the spec that the result of a run depends on."""
    data = spec.dump()
    for section, keys in INCIDENTAL.items():
        data[section] = {k: v for k, v in data[section].items() if k not in keys}
    return data


def default_directory(spec: Spec) -> Path:
    """Return ``runs/METHOD-ARCH-DATA-ID``: the same spec always has the same directory."""
    mark = hashlib.sha256(json.dumps(identity(spec), sort_keys=True).encode()).hexdigest()[:6]
    stem = Path(spec.data.path).stem or "data"
    name = f"{spec.method.name}-{spec.backbone.arch}-{stem}-{mark}"
    return Path("runs") / "".join(c if c.isalnum() or c in "-_." else "_" for c in name)


def fresh_directory(path: Path) -> Path:
    """Return ``path``, or the first of path-2, path-3, … that does not exist."""
    n = 1
    candidate = path
    while candidate.exists():
        n += 1
        candidate = path.with_name(f"{path.name}-{n}")
    return candidate


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the directory ``path`` for this process alone, creating it where it is missing.

    Raises MachineError where another process has it, naming that one, and where the disk refuses.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = (path / LOCK).open("a+")
    except OSError as e:
        raise MachineError(f"run directory {path}: {e.strerror}", "choose another with --out") from e
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            file.seek(0)
            owner = file.read().strip() or "another process"
            hint = "wait for it, or choose another --out"
            raise MachineError(f"run directory {path} is in use by {owner}", hint) from e
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                file.truncate(0)


class Run:
    """The directory of one run, locked while entered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec_file = path / "spec.yaml"
        self.checkpoints = path / "checkpoints"
        self.last = self.checkpoints / "last.safetensors"
        self.best = self.checkpoints / "best.safetensors"  # by probe
        self.sessions_file = path / "sessions.jsonl"
        self.bad_file = path / "bad_images.jsonl"
        self.bad: dict[int, str] = {}
        self._lock: AbstractContextManager[None] | None = None
        self._metrics = Metrics(path)

    def __enter__(self) -> Run:
        self._lock = locked(self.path)
        self._lock.__enter__()
        try:
            self.checkpoints.mkdir(exist_ok=True)
        except OSError as e:
            raise MachineError(f"run directory {self.path}: {e.strerror}", "choose another with --out") from e
        with contextlib.suppress(KeyError):
            self.bad = {line["index"]: line["reason"] for line in read_objects(self.bad_file)}
        sweep(self.checkpoints)
        sweep(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        self._metrics.close()
        if self._lock is not None:
            self._lock.__exit__(None, None, None)

    def claim(self, spec: Spec) -> None:
        """Write the spec, or check that the same one is there. Raises SpecError with the differences."""
        if self.spec_file.exists():
            changes = differences(read_spec_file(self.spec_file), spec.dump(), identity(spec))
            if changes:
                lines = "\n".join(f"  {key}: {old!r} there, {new!r} asked for" for key, old, new in changes)
                raise SpecError(
                    f"{self.path} holds a run with another spec:\n{lines}",
                    "choose another --out, or --fresh for a new directory beside it",
                )
        elif any(self.checkpoints.glob("*.safetensors")):
            raise CheckpointError(f"{self.path} holds checkpoints but no spec.yaml", "choose another --out")
        else:
            write_atomically(self.spec_file, spec.to_yaml().encode())

    def start_metrics(self, step: int) -> None:
        """Open the metrics, without lines of steps after ``step`` (they will be written again)."""
        self._metrics.start(step)

    def log(self, values: Line) -> None:
        """Append one metric line."""
        self._metrics.append(values)

    def lines(self) -> list[Line]:
        """Return the metric lines."""
        return read_metrics(self.path)

    def last_line(self) -> Line:
        """Return the newest metric line; empty where there is none."""
        return next(reversed(self.lines()), {})

    def record_session(self, event: dict[str, Any]) -> None:
        """Append that a session of the run begins or ends, where, and how."""
        with self.sessions_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")

    def record_bad(self, index: int, name: str, reason: str) -> None:
        """List an image that could not be read, once."""
        if index not in self.bad:
            self.bad[index] = reason
            with contextlib.suppress(OSError), self.bad_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"index": index, "image": name, "reason": reason}) + "\n")

    def numbered(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:09d}.safetensors"

    def keep_last(self, path: Path, keep: int) -> None:
        """Make ``last`` the checkpoint at ``path``, and delete all but the newest ``keep`` numbered ones."""
        partial = self.last.with_name(f".{self.last.name}.part-{os.getpid()}")
        try:
            os.link(path, partial)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, partial)
        partial.replace(self.last)
        for old in sorted(self.checkpoints.glob("step-*.safetensors"))[:-keep]:
            with contextlib.suppress(OSError):
                old.unlink()


class ReadOnlyRun(Run):
    """The run directory in a process that is not the first of several: the first one locks and writes."""

    def __enter__(self) -> Run:
        return self

    def claim(self, spec: Spec) -> None:
        pass

    def start_metrics(self, step: int) -> None:
        pass


def differences(old: Data, new: Data, considered: Data, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Return the dotted keys of ``considered`` whose values differ between ``old`` and ``new``."""
    changes: list[tuple[str, Any, Any]] = []
    for key, inner in considered.items():
        a, b = old.get(key), new.get(key)
        if isinstance(inner, dict) and isinstance(a, dict) and isinstance(b, dict):
            changes += differences(a, b, inner or a | b, f"{prefix}{key}.")
        elif a != b:
            changes.append((prefix + key, a, b))
    return changes
