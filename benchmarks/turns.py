"""Tasks timed in turns, so that whatever else the machine does hits all of them."""

from __future__ import annotations

import time
from collections.abc import Callable


def fastest(repetitions: int, *tasks: Callable[[], object]) -> list[float]:
    """Least process-CPU seconds of each task."""
    best = [float("inf")] * len(tasks)
    for _ in range(repetitions):
        for i, task in enumerate(tasks):
            before = time.process_time()
            task()
            best[i] = min(best[i], time.process_time() - before)
    return best
