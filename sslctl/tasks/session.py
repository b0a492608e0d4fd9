"""What accompanies a training: sinks, glimpses, sessions.jsonl; at its end the report."""

from __future__ import annotations

import os
import platform
import shlex
import socket
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self

import torch

from ..engine.setup import Training
from ..errors import DivergedError, Exit, SslctlError, Stopped
from ..runs.directory import Run
from ..runs.sinks import Sinks
from ..runtime import distributed
from ..version import __version__
from ..visualize.maps.over_time import Glimpses
from .feedback import Feedback
from .report import draw_report

ON_STOP = 3.0  # seconds for neighbours in the report of a run that was asked to stop


class Session:
    """Gets every line of a training. Nothing here can stop it: what fails is warned of once and left out."""

    def __init__(
        self, training: Training, run: Run, feedback: Feedback, callback: Callable[[dict[str, Any]], None] | None
    ) -> None:
        self.training, self.run, self.feedback, self.callback = training, run, feedback, callback
        self.first = distributed.rank() == 0  # of several processes, the one that writes
        self.sinks = Sinks(training.spec.run.log_to, run.path, training.spec.dump(), feedback.warn)
        self._glimpses: Glimpses | None = None
        self._trained = False  # there was something left to do

    def __enter__(self) -> Self:
        return self

    def report(self, line: dict[str, Any]) -> None:
        if "resumed" in line:
            for reason in line["skipped"]:
                self.feedback.warn(f"{reason}; using an older checkpoint")
            if line["resumed"]:
                share = 100 * line["resumed"] / self.training.total
                self.feedback.note(f"going on from step {line['resumed']} ({share:.0f} % done)")
        if self.callback is not None:
            self.callback(line | {"total": self.training.total})
        if not self.first:
            return
        if "resumed" in line:
            self._begin(int(line["resumed"]))
        elif "step" in line:
            self.sinks.log(line)
            if (glimpses := self._glimpses) is not None:
                self._attempt("glimpses", lambda: glimpses.at(line["step"]))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt) or not self.first:
            return  # a second Ctrl-C: leave at once
        self.sinks.close()
        if self._trained:
            self.run.record_session({"event": "end", "time": now(), **ending(error)})
        if (self._trained or not (self.run.path / "report.html").exists()) and self.run.last_line():
            t, limit = self.training, {"seconds": ON_STOP} if isinstance(error, Stopped) else {}
            draw_report(self.run.path, self.feedback, source=t.source, device=t.device, **limit)

    def _begin(self, step: int) -> None:
        self._trained = step < self.training.total
        if not self._trained:
            return
        self._attempt("sessions.jsonl", lambda: self.run.record_session(self._start(step)))
        self._attempt("glimpses", lambda: self._open_glimpses(step))
        self.sinks.begin([line for line in self.run.lines() if line["step"] <= step])

    def _open_glimpses(self, step: int) -> None:
        t = self.training
        self._glimpses = Glimpses(self.run.path, t.method.encoder(), t.source, t.meta.image.transform(), t.total)
        self._glimpses.begin(step)

    def _start(self, step: int) -> dict[str, Any]:
        """Return what sessions.jsonl records of the session's beginning."""
        t = self.training
        length = {"from_step": step, "total": t.total, "per_epoch": t.per_epoch, "images": len(t.source)}
        precision = str(t.dtype).removeprefix("torch.")
        return {"event": "start", "time": now(), **length, "precision": precision, **machine(t.device)}

    def _attempt(self, what: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as e:  # whatever goes wrong with a picture, the training goes on
            self._glimpses = None if what == "glimpses" else self._glimpses
            reason = e.message if isinstance(e, SslctlError) else f"{type(e).__name__}: {e}"
            self.feedback.warn(f"{what}: {reason}; the run goes on without it")


def ending(error: BaseException | None) -> dict[str, Any]:
    """Return how a session ended, in a word, and why."""
    if error is None:
        return {"state": "finished"}
    if isinstance(error, Stopped):
        return {"state": "interrupted" if error.exit_code is Exit.INTERRUPTED else "stopped"}
    message = error.message if isinstance(error, SslctlError) else f"{type(error).__name__}: {error}"
    if isinstance(error, DivergedError):
        return {"state": "collapsed" if message.startswith("collapsed") else "diverged", "message": message}
    return {"state": "failed", "message": message}


def machine(device: torch.device) -> dict[str, Any]:
    """Return where a session runs, and with what."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "host": socket.gethostname(),
        "system": platform.platform(),
        "sslctl": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "timm", "numpy")},
        "command": shlex.join(sys.argv),
        "folder": os.getcwd(),
    }


def now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S%z")
