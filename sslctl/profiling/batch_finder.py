"""Which batch fits: real steps of a run at growing sizes, with the memory that each needs and its images a second."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import count, pairwise, takewhile
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ..engine.setup import RunInputs, build
from ..errors import MachineError, SpecError, ran_out_of_memory
from ..runtime import distributed
from ..runtime.device import choose_device, free_memory, peak_memory
from ..spec.schema import Spec
from .breakdown import time_loading
from .estimate import FILL, estimate, parts_that_fit
from .limit import race, training_step

LEAST = 4  # images in the first pass
STEADY = 0.9  # of the best rate: from there on a larger batch pays little
SLOW = 10.0  # seconds; no batch is tried whose step would take longer


@dataclass(frozen=True)
class Trial:
    """A batch that fits: median seconds of augmentation and step, and the most bytes in use until then."""

    batch: int
    seconds: float
    memory: int

    @property
    def rate(self) -> float:
        """Return images a second, once they are loaded."""
        return self.batch / self.seconds


@dataclass(frozen=True)
class BatchSearch:
    """Trials by growing batch, what ended them (memory, images or time), and why in words.

    ``room``: bytes that may be filled, None where unknown; ``views`` of an image in bytes; ``per_image``, the estimate.
    """

    trials: list[Trial]
    ended: str
    reason: str
    room: int | None
    views: int
    per_image: int = 0

    @property
    def largest(self) -> int | None:
        """Return the largest batch that fits; None where not even the first does."""
        return self.trials[-1].batch if self.trials else None

    @property
    def enough(self) -> int | None:
        """Return the smallest batch that is nearly as fast, per image, as any."""
        best = max((trial.rate for trial in self.trials), default=0.0)
        return next((trial.batch for trial in self.trials if trial.rate >= STEADY * best), None)

    def accumulate(self, spec: Spec) -> int | None:
        """Return the ``optim.accumulate`` with which the spec's batch fits; None if none is needed or enough.

        A pass needs what a batch of its size did, and all views of the batch are there beside it.
        """
        batch, room = spec.run.batch_size, self.room
        if self.ended != "memory" or self.largest is None or room is None or batch <= self.largest:
            return None

        def fits(parts: int) -> bool:
            alike = next((t for t in self.trials if t.batch * parts >= batch * spec.optim.accumulate), None)
            return alike is not None and alike.memory + (batch - alike.batch) * self.views <= room

        return parts_that_fit(batch, fits)

    def as_dict(self) -> dict[str, Any]:
        trials = [asdict(trial) | {"images_per_second": trial.rate} for trial in self.trials]
        answer = {"largest_batch_tried": self.largest, "steady_from": self.enough, "room_bytes": self.room}
        answer["image_bytes_estimated"] = self.per_image
        return {"trials": trials, **answer, "ended_by": self.ended, "reason": self.reason}


def find_batch(
    inputs: RunInputs, upto: int | None = None, report: Callable[[Trial], None] = lambda trial: None
) -> BatchSearch:
    """Try batches of 4, 8, 16, … images, times ``optim.accumulate``, until one does not fit.

    Each trial is the run itself at that size, built afresh: real images, augmentation, step and optimizer, but not
    compiled, which takes minutes for every size. The memory that it needs is predicted from the smaller ones, and a
    batch that would fill more than FILL is not tried: a CPU's memory must not run out. The last is ``upto`` itself
    if given, and the spec's own batch where free memory is not known. Raises SpecError on several processes.
    """
    if distributed.world_size() > 1:
        hint = "sslctl bench --find-batch on one device, then --batch-size with so many for each"
        raise SpecError("one process looks for the largest batch, not several", hint)
    inputs = with_run(inputs, compile=False)
    spec, trials = inputs.spec, list[Trial]()
    device = choose_device(spec.run.device)
    if room(device) is None:
        upto = upto or spec.run.batch_size
    least = LEAST * spec.optim.accumulate
    most = min(len(inputs.train), upto or len(inputs.train))
    sizes = list(takewhile(lambda n: n <= most, (least * 2**k for k in count())))
    if most == upto and most not in sizes:
        sizes.append(most)
    size = estimate(build(with_run(inputs, batch_size=min(least, most))))
    ended = "images", f"a larger one would have more than {most} images"
    for batch in sizes:
        obstacle = _too_slow(batch, trials) or too_large(batch, trials, size.per_image, device)
        trial = None if obstacle else _try(inputs, batch, trials, device)
        if trial is None:
            ended = obstacle or ("memory", f"{batch} images ran out of memory")
            break
        trials.append(trial)
        report(trial)
    return BatchSearch(trials, *ended, room(device), size.views, size.per_image)


def batch_that_fits(inputs: RunInputs, report: Callable[[Trial], None] = lambda trial: None) -> tuple[int, BatchSearch]:
    """Return the spec's own batch if it fits into memory, else the largest that does; and the search.

    Raises MachineError where nothing fits, and what `find_batch` raises.
    """
    own = inputs.spec.run.batch_size
    search = find_batch(inputs, own, report)
    if search.ended == "time" and (
        search.room is None or predict_memory(own, search.trials, search.per_image) <= search.room
    ):
        return own, search  # too slow to be tried whole, which is no reason against it
    if search.largest is None:
        raise MachineError(f"--batch-size auto: {search.reason}", "smaller views (--multi-crop) or --arch")
    return search.largest, search


def with_run(inputs: RunInputs, **changes: object) -> RunInputs:
    """Return ``inputs`` of a run with ``changes`` to its section ``run``."""
    run = inputs.spec.run.model_copy(update=changes)
    return replace(inputs, spec=inputs.spec.model_copy(update={"run": run}))


def predict_memory(batch: int, trials: list[Trial], per_image: int, in_use: int = 0) -> int:
    """Return the bytes that ``batch`` will need, by the last three ``trials`` and at least ``per_image``.

    What an image needs grows where a loss compares every image with every other, so its growth is carried on. Where
    there are no trials yet it is needed beside what is ``in_use``.
    """
    if not trials:
        return in_use + per_image * batch
    slopes = [(b.memory - a.memory) / (b.batch - a.batch) for a, b in pairwise(trials[-3:])]
    growth = min(2.0, max(1.0, slopes[-1] / slopes[0])) if slopes and slopes[0] > 0 else 1.0
    slope = max(float(per_image), growth * slopes[-1] if slopes else 0.0)
    return trials[-1].memory + int(slope * (batch - trials[-1].batch))


def room(device: torch.device) -> int | None:
    """Return the bytes that this process may fill on ``device``, including its own; None where unknown."""
    free = free_memory(device)
    return None if free is None else int(FILL * (free + memory_in_use(device)))


def memory_in_use(device: torch.device) -> int:
    """Return the bytes that this process holds on ``device``; 0 where unknown."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    with suppress(OSError, ValueError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _too_slow(batch: int, trials: list[Trial]) -> tuple[str, str] | None:
    seconds = batch / trials[-1].rate if trials else 0.0
    return ("time", f"a step of {batch} images would take {seconds:.0f} s") if seconds > SLOW else None


def too_large(batch: int, trials: list[Trial], per_image: int, device: torch.device) -> tuple[str, str] | None:
    """Return why ``batch`` is not tried, where more memory is predicted for it than ``room`` allows."""
    there, needed = room(device), predict_memory(batch, trials, per_image, memory_in_use(device))
    if there is None or needed <= there:
        return None
    return "memory", f"{batch} images would need {needed / 2**30:.2f} GiB, and {there / 2**30:.2f} may be filled"


def _try(inputs: RunInputs, batch: int, trials: list[Trial], device: torch.device) -> Trial | None:
    """Take some steps with ``batch`` images; return None where memory ran out."""
    seconds = batch / trials[-1].rate if trials else 0.1  # of a step, about
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        return _take_steps(with_run(inputs, batch_size=batch), device, rounds=max(1, min(5, int(2 / seconds))))
    except (RuntimeError, MemoryError) as e:
        if not ran_out_of_memory(e):
            raise
        return None
    finally:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _take_steps(inputs: RunInputs, device: torch.device, rounds: int) -> Trial:
    t = build(inputs)
    _, _, images = time_loading(t)
    took = race({"step": lambda: training_step(t, t.augment(images, device))()}, device, rounds)
    return Trial(inputs.spec.run.batch_size, median(took["step"]), peak_memory(device))
