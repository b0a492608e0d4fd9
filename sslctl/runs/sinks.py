"""Where metric lines go beside metrics.jsonl: TensorBoard, W&B, trackio; each an extra, none able to stop a run."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import uuid
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ..errors import MachineError
from ..files import write_atomically

EXTRAS = {"tensorboard": "tb", "wandb": "wandb", "trackio": "trackio"}
MARKS = "log_to.json"  # in the run: per sink the id of its run there, and the last step it has
Line = dict[str, Any]


def require(names: Iterable[str]) -> None:
    """Raise MachineError, with the pip line, where a library of ``names`` is not installed."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        extras = ",".join(EXTRAS[name] for name in missing)
        raise MachineError(f"--log-to {','.join(missing)}: not installed", f"pip install 'sslctl[{extras}]'")


class Sink(Protocol):
    """One open run at one of the services."""

    def log(self, values: dict[str, float], step: int) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in RUN/tensorboard; what they hold beyond ``step`` is purged."""

    def __init__(self, folder: Path, id_: str, step: int, config: Line) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        if not step:
            self._writer.add_text("spec", f"```json\n{json.dumps(config, indent=2)}\n```", 0)

    def log(self, values: dict[str, float], step: int) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A run of the project sslctl (or WANDB_PROJECT), kept below RUN; offline unless there is a key, or WANDB_MODE."""

    def __init__(self, folder: Path, id_: str, step: int, config: Line) -> None:
        import wandb

        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "sslctl"),
            id=id_,
            name=folder.resolve().name,
            dir=str(folder),
            config=config,
            resume="allow",
            mode=os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline"),
            settings=wandb.Settings(console="off", init_timeout=60),
        )

    def log(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A run of the project sslctl (or TRACKIO_PROJECT), in trackio's own folder or where its variables say."""

    def __init__(self, folder: Path, id_: str, step: int, config: Line) -> None:
        import trackio

        self._run: Any = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "sslctl"),
            name=f"{folder.resolve().name}-{id_}",
            config=config,
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        import trackio

        trackio.finish()  # of the module: after the run's own it would finish once more at exit, and say so on stdout


KINDS: dict[str, Callable[[Path, str, int, Line], Sink]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "trackio": Trackio,
}


class Sinks:
    """The sinks ``names`` of the run in ``folder``; one that fails is warned of once and then left out.

    A line is sent once: each sink's last step is kept beside the run, and since a resumed run repeats its lines to the
    bit, those up to it are passed over.
    """

    def __init__(self, names: Iterable[str], folder: Path, config: Line, warn: Callable[[str], None]) -> None:
        self.folder = folder
        self._config = config
        self._warn = warn
        self._marks: dict[str, Line] = {name: {"id": uuid.uuid4().hex[:12], "step": 0} for name in names}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            for name, mark in json.loads((folder / MARKS).read_text("utf-8")).items():
                self._marks[name] = {"id": str(mark["id"]), "step": int(mark["step"])}
        self._names = list(names)
        self._open: dict[str, Sink] = {}

    def begin(self, lines: Iterable[Line]) -> None:
        """Open every sink, and send it the ``lines`` that it does not have."""
        for name in self._names:
            self._attempt(name, lambda name=name: self._begin(name))  # type: ignore[misc]
        for line in lines:
            self.log(line)

    def log(self, line: Line) -> None:
        """Send the numbers of a metric line."""
        for name in list(self._open):
            self._attempt(name, lambda name=name: self._send(name, line))  # type: ignore[misc]

    def close(self) -> None:
        for name in list(self._open):
            self._attempt(name, self._open[name].close)
        self._open = {}

    def _begin(self, name: str) -> None:
        mark = self._marks[name]
        self._open[name] = KINDS[name](self.folder, mark["id"], mark["step"], self._config)

    def _send(self, name: str, line: Line) -> None:
        mark, step = self._marks[name], int(line["step"])
        if step <= mark["step"]:
            return
        self._open[name].log({k: float(v) for k, v in line.items() if k != "step" and _number(v)}, step)
        mark["step"] = step
        write_atomically(self.folder / MARKS, json.dumps(self._marks).encode())

    def _attempt(self, name: str, work: Callable[[], None]) -> None:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is the command's result and nothing else
                work()
        except Exception as e:  # foreign code, which may raise anything, and a run that must go on
            self._open.pop(name, None)
            self._warn(f"--log-to {name}: {type(e).__name__}: {e}; the run goes on without it")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
