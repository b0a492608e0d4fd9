"""Checkpoints written in the background: the step waits for a copy of its numbers, not for the disk."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class BackgroundWriter:
    """A thread that does one thing at a time, in the order of submission; an error is raised at the next call here.

    Closing it waits for everything submitted, so that whoever leaves, at the end of the run or at a stop, finds the
    checkpoint on disk.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "background-writer")
        self._pending: Future[None] | None = None

    def submit(self, work: Callable[[], None]) -> None:
        """Wait for what is under way, then begin ``work``: there is never more than one copy of a run's state."""
        self.wait()
        self._pending = self._thread.submit(work)

    def wait(self) -> None:
        """Wait for what is under way."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()
