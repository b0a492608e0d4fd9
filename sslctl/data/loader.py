"""Batches of views in the order of the run: files decoded and cropped in workers, arrays straight from memory."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..errors import DataError, MachineError, SslctlError
from .order import Key, StepKeys
from .ring import BATCHES_AHEAD, Ring, make_ring
from .source import Source
from .unreadable import check_bad, nothing_readable
from .workers import CroppedBatch, Geometric, Reader, Tasks, as_is, start_worker

GRACE = 2.0
"""Seconds that workers have to end by themselves."""


@dataclass(frozen=True)
class Batch:
    """One step's images on this process: ``crops`` of each view, or whole ``images``, never both."""

    index: Tensor  # int64 (B,), position in the source, in the run's order
    epoch: Tensor  # int64 (B,)
    crops: list[Tensor] = field(default_factory=list)  # a view each, uint8 (B, 3, S, S)
    images: Tensor | None = None  # uint8 (B, 3, H, W), strides channels-last: not yet cropped
    labels: Tensor | None = None  # int64 (B,), of the images used
    bad: list[tuple[int, str]] = field(default_factory=list)  # unreadable: (index, reason); the next one took its place


class Loader:
    """An iterator over the batches of steps ``start_step`` to ``total_steps``, whatever ``workers`` is.

    ``geometric(image, epoch, index)`` makes the crops of one image; sources that are in memory do without it and
    without workers, unless they are not to be handed over ``whole``. ``sizes`` of those crops, where they are squares,
    let workers hand them over in memory that is used again. ``batch_size`` is global, this process gets ``batch_size /
    world_size`` images a step.
    Raises DataError where an epoch has not a single batch, where nothing can be read, and on the first unreadable
    image with ``fail_on_bad``; MachineError where a worker dies or shared memory runs out.
    """

    def __init__(
        self,
        source: Source,
        geometric: Geometric | None,
        *,
        batch_size: int,
        seed: int,
        start_step: int,
        total_steps: int,
        workers: int,
        rank: int = 0,
        world_size: int = 1,
        fail_on_bad: bool = False,
        sizes: Sequence[int] | None = None,
        whole: bool = True,
    ) -> None:
        if len(source) < batch_size:
            raise DataError(
                f"{source.name} has {len(source)} images, fewer than one batch of {batch_size}",
                f"--batch-size {len(source)} or less",
            )
        self.whole = whole and source.array is not None
        if not self.whole and geometric is None:
            raise ValueError("a source that is not in memory needs `geometric` to crop its images")
        self.source, self.geometric, self.workers = source, geometric, workers
        self.fail_on_bad, self.sizes = fail_on_bad, sizes
        self.steps_per_epoch = len(source) // batch_size
        self.keys = StepKeys(
            len(source),
            batch_size=batch_size,
            seed=seed,
            start_step=start_step,
            total_steps=total_steps,
            rank=rank,
            world_size=world_size,
        )
        self._part = batch_size // world_size
        self._running: Any = None

    def __iter__(self) -> Iterator[Batch]:
        batches = self._from_memory() if self.whole else self._by_workers()
        with contextlib.closing(batches):
            for batch in batches:
                if self.fail_on_bad:
                    check_bad(self.source, dict(batch.bad), fail=True, limit=0)
                yield batch

    @property
    def processes(self) -> list[Any]:
        """Return the running loader processes."""
        return list(getattr(self._running, "_workers", []))

    def close(self) -> None:
        """End the workers; those that take longer than GRACE seconds are killed, for they ignore SIGTERM."""
        processes = self.processes
        running, self._running = self._running, None
        if not processes:
            return
        late = threading.Timer(GRACE, lambda: [process.kill() for process in processes if process.is_alive()])
        late.start()
        try:
            running._shutdown_workers()
        finally:
            late.cancel()

    def _from_memory(self) -> Generator[Batch, None, None]:
        array, bad = self.source.array, self.source.bad
        assert array is not None
        if len(bad) == len(self.source):
            raise nothing_readable(self.source, bad)
        for keys in self.keys:
            met: list[tuple[int, str]] = []
            used = []
            for _, index in keys:
                while index in bad:
                    met.append((index, bad[index]))
                    index = (index + 1) % len(array)
                used.append(index)
            images = torch.from_numpy(array[used]).permute(0, 3, 1, 2)
            yield _batch(self.source, keys, used, [], images, met)

    def _by_workers(self) -> Generator[Batch, None, None]:
        if not len(self.keys):
            return
        assert self.geometric is not None
        reading = torch.full((max(1, self.workers),), -1)  # the index in hand, by worker
        reading.share_memory_()  # type: ignore[no-untyped-call]
        ring = make_ring(self._part, self.sizes, self.workers)
        loader = DataLoader(
            Reader(self.source, self.geometric, reading, ring),
            batch_sampler=Tasks(self.keys, ring),  # type: ignore[arg-type]  # of tasks, which are no lists
            num_workers=self.workers,
            prefetch_factor=BATCHES_AHEAD if self.workers else None,
            collate_fn=as_is,
            worker_init_fn=start_worker,
            persistent_workers=self.workers > 0,
            generator=torch.Generator(),  # else starting it would move torch's global one
        )
        batches = self._start(loader)
        try:
            for _ in range(len(self.keys)):
                try:
                    work = next(batches)
                except (RuntimeError, OSError, EOFError) as e:
                    error = self._machine_error(e, reading.tolist())
                    if error is None:
                        raise
                    raise error from e
                if isinstance(work, SslctlError):
                    raise work
                yield self._received(work, ring)
                del work
        finally:
            self.close()

    def _received(self, work: CroppedBatch, ring: Ring | None) -> Batch:
        crops = work.crops
        if work.place is not None:
            assert ring is not None
            crops = ring.lend(work.place)
        return _batch(self.source, work.keys, work.used, crops, None, work.bad)

    def _start(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """Start the workers; a death shows at the next batch, not in a signal handler somewhere."""
        child = getattr(signal, "SIGCHLD", None)
        before = None if child is None else signal.getsignal(child)
        self._running = iter(loader)
        if child is not None and signal.getsignal(child) is not before:
            signal.signal(child, before or signal.SIG_DFL)
        return iter(self._running)

    def _machine_error(self, e: Exception, reading: list[int]) -> MachineError | None:
        """Return what the death of a worker looks like from here; None where ``e`` is something else."""
        lost, causes = [], set()
        patience = 0.0 if str(e).startswith("Caught ") else 0.2  # an exception in a worker, or a death of just now
        for worker, process in enumerate(self.processes):
            process.join(patience)
            if process.exitcode:
                at = f" while reading {self.source.item_name(reading[worker])}" if reading[worker] >= 0 else ""
                lost.append(f"worker {worker}{at}")
                causes.add(
                    signal.Signals(-process.exitcode).name if process.exitcode < 0 else f"exit {process.exitcode}"
                )
        if "SIGBUS" in causes or "No space left on device" in str(e) or "shared memory" in str(e):
            return MachineError(
                "the loader ran out of shared memory (/dev/shm)",
                "give it more (docker run --shm-size 8g), or --workers 0",
            )
        if not lost:
            return None
        return MachineError(
            f"a loader process died ({', '.join(sorted(causes))}): {'; '.join(lost)}",
            "SIGKILL is most often the out-of-memory killer (see dmesg): fewer --workers need less memory",
        )


def _batch(
    source: Source,
    keys: list[Key],
    used: list[int],
    crops: list[Tensor],
    images: Tensor | None,
    bad: list[tuple[int, str]],
) -> Batch:
    labels = None if source.labels is None else torch.from_numpy(source.labels[used])
    epoch, index = torch.tensor(keys, dtype=torch.int64).unbind(1)
    return Batch(index.clone(), epoch.clone(), crops, images, labels, bad)
