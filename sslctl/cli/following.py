"""What goes along with a training: progress, sinks, glimpses; at its end the session's last line, and the report."""

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
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import DivergedError, Exit, SslctlError, Stopped
from . import output
from .progress import Progress
from .report import draw

if TYPE_CHECKING:
    import torch

    from ..engine.setup import Training
    from ..runs.directory import Run

ON_STOP = 3.0  # seconds for neighbours in the report of a run that was asked to leave


class Following:
    """Hears every line of a training. Nothing here can stop it: what fails is warned of once and left out."""

    def __init__(self, training: Training, run: Run) -> None:
        from ..runs.sinks import Sinks
        from ..runtime.distributed import rank

        self.training, self.run = training, run
        self.first = rank() == 0  # of several processes, the one that writes
        self.progress = Progress(training.total, training.per_epoch)
        self.sinks = Sinks(training.spec.run.log_to, run.path, training.spec.dump(), output.warn)
        self._glimpses: Any = None
        self._trained = False  # there was something left to do

    def __enter__(self) -> Following:
        self.progress.__enter__()
        return self

    def report(self, line: dict[str, Any]) -> None:
        self.progress.report(line)
        if not self.first:
            return
        if "resumed" in line:
            self._begin(int(line["resumed"]))
        elif "step" in line:
            self.sinks.log(line)
            if self._glimpses is not None:
                self._attempt("glimpses", lambda: self._glimpses.at(line["step"]))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.progress.__exit__()
        if isinstance(error, KeyboardInterrupt) or not self.first:
            return  # a second Ctrl-C: leave at once
        self.sinks.close()
        if self._trained:
            self.run.record_session({"event": "end", "time": now(), **ending(error)})
        if (self._trained or not (self.run.path / "report.html").exists()) and self.run.last_line():
            t, hurry = self.training, {"seconds": ON_STOP} if isinstance(error, Stopped) else {}
            draw(self.run.path, source=t.source, device=t.device, **hurry)

    def _begin(self, step: int) -> None:
        self._trained = step < self.training.total
        if not self._trained:
            return
        self._attempt("sessions.jsonl", lambda: self.run.record_session(self._surroundings(step)))
        self._attempt("glimpses", lambda: self._look(step))
        self.sinks.begin([line for line in self.run.lines() if line["step"] <= step])

    def _look(self, step: int) -> None:
        from ..visualize.maps.over_time import Glimpses

        t = self.training
        image, encoder = t.meta.image, t.method.encoder()
        transform = image.transform()
        self._glimpses = Glimpses(self.run.path, encoder, t.source, transform, t.total)
        self._glimpses.begin(step)

    def _surroundings(self, step: int) -> dict[str, Any]:
        t = self.training
        length = {"from_step": step, "total": t.total, "per_epoch": t.per_epoch, "images": len(t.source)}
        precision = str(t.dtype).removeprefix("torch.")
        return {"event": "start", "time": now(), **length, "precision": precision, **machine(t.device)}

    def _attempt(self, what: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as e:  # a picture or a page: whatever goes wrong with it, the training is what matters
            self._glimpses = None if what == "glimpses" else self._glimpses
            reason = e.message if isinstance(e, SslctlError) else f"{type(e).__name__}: {e}"
            output.warn(f"{what}: {reason}; the run goes on without")


def ending(error: BaseException | None) -> dict[str, Any]:
    """How a session ended, in a word, and why."""
    if error is None:
        return {"state": "finished"}
    if isinstance(error, Stopped):
        return {"state": "interrupted" if error.exit_code is Exit.INTERRUPTED else "stopped"}
    message = error.message if isinstance(error, SslctlError) else f"{type(error).__name__}: {error}"
    if isinstance(error, DivergedError):
        return {"state": "collapsed" if message.startswith("collapsed") else "diverged", "message": message}
    return {"state": "failed", "message": message}


def machine(device: torch.device) -> dict[str, Any]:
    """Where a session runs, and with what."""
    import torch

    where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    versions = {name: version(name) for name in ("torch", "timm", "numpy")}
    return {
        "device": where,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "host": socket.gethostname(),
        "system": platform.platform(),
        "sslctl": __version__,
        "python": platform.python_version(),
        **versions,
        "command": shlex.join(sys.argv),
        "folder": os.getcwd(),
    }


def now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S%z")
