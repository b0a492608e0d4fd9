"""A request to stop: a signal or the clock sets a flag, and the loop saves and leaves at its next step."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from ..errors import Exit

SIGNALS = {signal.SIGINT: Exit.INTERRUPTED}
SIGNALS |= {
    getattr(signal, name): Exit.STOPPED for name in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP") if hasattr(signal, name)
}


class StopRequest:
    """Signal handlers and a clock: while entered, ``requested`` is the exit code to leave with, or None.

    A second Ctrl-C raises KeyboardInterrupt at once. ``max_minutes`` counts from entering.
    """

    def __init__(self, max_minutes: float | None = None, announce: Callable[[str], None] = lambda _: None) -> None:
        self._max_minutes = max_minutes
        self._announce = announce
        self._code: Exit | None = None
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        self._started = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            self._old = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    @property
    def requested(self) -> Exit | None:
        late = self._max_minutes is not None and time.monotonic() - self._started > 60 * self._max_minutes
        if self._code is None and late:
            self._code = Exit.STOPPED
        return self._code

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self._code is Exit.INTERRUPTED:
            raise KeyboardInterrupt
        self._code = SIGNALS[signal.Signals(number)]
        again = "; Ctrl-C again leaves without saving" if number == signal.SIGINT else ""
        self._announce(f"{signal.Signals(number).name}: saving after this step{again}")
