"""Checkpoints written beside the training: the step waits for a copy of its numbers, not for the disk."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Saver:
    """Does one thing at a time in a thread, in the order given; an error is raised at the next call here.

    As a context it ends with everything done, so that what leaves it, be it the end of the run or a stop, finds its
    checkpoint on disk.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "saver")
        self._pending: Future[None] | None = None

    def submit(self, work: Callable[[], None]) -> None:
        """Wait for what is under way, then begin ``work``: there is never more than one copy of a run's state."""
        self.wait()
        self._pending = self._thread.submit(work)

    def wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()
