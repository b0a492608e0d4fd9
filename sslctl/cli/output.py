"""The one place that prints: results to stdout, all else to stderr; of several processes, only the first one.

Also how things look there: tables, and the progress of the work under way.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Exit, SslctlError

if TYPE_CHECKING:
    from ..tasks.feedback import Note

BARS = "▁▂▃▄▅▆▇█"
INTERVAL = 10.0  # seconds between lines of progress where there is no terminal

_quiet = False
_verbose = False
_first = os.environ.get("RANK", "0") == "0"  # as torchrun sets it; the others compute the same and print nothing


def set_verbosity(quiet: bool, verbose: bool) -> None:
    global _quiet, _verbose
    _quiet, _verbose = quiet, verbose


def emit(text: str) -> None:
    """The command's result, on stdout."""
    if _first:
        print(text, flush=True)


def note(message: Note | str) -> None:
    """A sentence from a task, on stderr: warnings always, notes unless ``-q``, details with ``-v``."""
    level = getattr(message, "level", "note")
    if _first and (level == "warning" or not (_quiet or (level == "detail" and not _verbose))):
        _stderr(f"warning: {message}" if level == "warning" else message)


def fail(error: SslctlError, as_json: bool) -> None:
    """An error: what, why and what to do next, on stderr; under ``--json`` also as the one object on stdout."""
    if as_json:
        body = {"code": int(error.exit_code), "message": error.message, "hint": error.hint}
        emit(json.dumps({"error": body}))
    mark = "" if error.exit_code in (Exit.STOPPED, Exit.INTERRUPTED) else "error: "
    _stderr(mark + error.message)
    if error.hint:
        _stderr(f"  {error.hint}")


def is_terminal() -> bool:
    """Whether stderr can show colour and a moving bar."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _stderr(message: str) -> None:
    # Names of files and classes come from outside: no control character of theirs reaches the terminal.
    clean = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in message)
    try:
        print(clean, file=sys.stderr, flush=True)
    except UnicodeEncodeError:
        print(clean.encode("ascii", "replace").decode(), file=sys.stderr, flush=True)
    except OSError:
        pass


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = (), indent: int = 0, gap: int = 2
) -> str:
    """Rows of text in columns with a ``gap`` between them; those numbered in ``right`` are aligned to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="")
    for i, title in enumerate(head):
        grid.add_column(Text(title), justify="right" if i in right else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*map(Text, row))
    buffer = io.StringIO()
    Console(file=buffer, width=10**5, color_system=None).print(grid)
    return "\n".join(" " * indent + line.rstrip() for line in buffer.getvalue().splitlines())


class Display:
    """How far the work under way is: on a terminal one labelled bar with the time left, elsewhere a line now and then.

    Below the bar of a training are its figures, the loss so far and the health in words.
    """

    def __init__(self) -> None:
        self._live: Any = None
        self._begin("", 0)

    def count(self, label: str, done: int, total: int) -> None:
        """``done`` of ``total`` are done (0: nobody knows how many there are)."""
        if label != self._label:
            self._begin(label, 0)
            self._shown = time.monotonic()  # short work needs no line
        if not self._draw(done, total) and self._due():
            note(f"  {done} of {total or 'unknown'}")
        if done == total:
            self.close()

    def train(self, line: dict[str, Any]) -> None:
        """A metric line of a training."""
        if "resumed" in line:
            self._begin("training", line["resumed"])
        if "probe_knn" in line:
            knn, linear = (f"{100 * line[key]:.1f} %" for key in ("probe_knn", "probe_linear"))
            note(f"probe at step {line['step']}: knn {knn}, linear {linear}, in {line['probe_seconds']:.1f} s")
        if "loss" not in line:  # a probe between two metric lines
            return
        self._losses.append(line["loss"])
        step, total = line["step"], line["total"]
        if not self._draw(step, total, line) and (self._due() or step == total):
            seconds = (total - step) * (time.monotonic() - self._begun) / max(1, step - self._from)
            note(f"step {step}/{total} · {_figures(line)} · {line['health']} · {seconds:.0f} s left")

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
        self._live, self._label = None, ""

    def _begin(self, label: str, done: int) -> None:
        if self._live is not None:
            self._live.stop()
        self._live = None
        self._bar: Any = None
        self._label, self._from, self._begun, self._shown = label, done, time.monotonic(), 0.0
        self._losses: list[float] = []

    def _due(self) -> bool:
        now = time.monotonic()
        due = now - self._shown >= INTERVAL
        self._shown = now if due else self._shown
        return due

    def _draw(self, done: int, total: int, line: dict[str, Any] | None = None) -> bool:
        """Move the bar; False where there is none to move."""
        if not is_terminal() or _quiet or not _first:
            return False
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text

        if self._live is None:
            columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
            self._bar = Progress(TextColumn("{task.description}", markup=False), *columns)
            self._task = self._bar.add_task(self._label, total=total or None)
            self._live = Live(self._bar, console=Console(stderr=True), refresh_per_second=4, transient=line is None)
            self._live.start()
        self._bar.update(self._task, completed=done)
        if line is not None:
            health = str(line["health"])
            colour = {"learning": "green", "collapsed": "bold red"}.get(health.split(" ")[0], "yellow")
            loss = Text(f"loss {sparkline(self._losses)} {line['loss']:.4f}")
            self._live.update(Group(self._bar, _figures(line), loss, Text(health, colour)))
        return True


display = Display()


def _figures(line: dict[str, Any]) -> str:
    return (
        f"epoch {line['epoch']:.1f} · loss {line['loss']:.4f} · lr {line['lr']:.2g} · "
        f"{line['images_per_second']:.0f} images/s · waiting {100 * line['data_wait']:.0f} %"
    )


def sparkline(values: list[float], width: int = 48) -> str:
    """``values`` as at most ``width`` bars of eight heights, each the mean of its part; the least is the lowest."""
    cells = min(width, len(values))
    parts = [values[i * len(values) // cells : (i + 1) * len(values) // cells] for i in range(cells)]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means), max(means)
    return "".join(BARS[round((v - low) / (high - low) * 7) if high > low else 0] for v in means)
