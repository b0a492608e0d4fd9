"""Where the time of a run goes: loading, augmentation, the step beside its limit, and what would help."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..backbones.compiling import uncompiled
from ..data.in_memory import in_batches
from ..data.loader import Batch
from ..data.unreadable import next_readable
from ..engine.optimizers import clip_gradients
from ..engine.setup import Training
from ..runtime.device import choose_workers, peak_memory
from ..schedule import Step
from .estimate import noise_views
from .limit import EncoderOnly, Run, race, training_step

READ = 24  # images decoded and cropped to know how fast that is
SQUARE = 2048  # side of the matrices whose product is the device's measured peak


@dataclass(frozen=True)
class Bench:
    """Seconds for a batch of ``images``: medians, each measured by itself.

    ``decode`` and ``crop`` are a loader process's work (none for a set in memory), ``augment`` is the device's.
    ``step`` is the whole training step, ``encoder`` its limit: the forward and backward passes of the backbones alone
    on the same crops; ``update`` is clipping, optimizer and teacher; ``objective`` the rest: heads and loss.
    ``ratio`` is step over encoder, taken round by round.
    """

    images: int
    decode: float
    crop: float
    augment: float
    step: float
    encoder: float
    update: float
    ratio: float
    workers: int
    flops: float  # of a step
    peak_flops: float  # a second, of a large matrix product in the run's precision
    memory: int  # largest so far, bytes
    precision: str
    start: float = 0.0  # the first two steps, in which networks are compiled; 0 where they are not

    @property
    def objective(self) -> float:
        return max(0.0, self.step - self.encoder - self.update)

    @property
    def device_rate(self) -> float:
        """Return images a second once they are loaded."""
        return self.images / (self.step + self.augment)

    @property
    def loader_rate(self) -> float:
        """Return images a second of all loader processes; infinite for a set in memory."""
        seconds = self.decode + self.crop
        return max(1, self.workers) * self.images / seconds if seconds else float("inf")

    @property
    def rate(self) -> float:
        """Return images a second of the run: the slower of both, or both in turn without loader processes."""
        if self.workers == 0:
            return self.images / (self.decode + self.crop + self.augment + self.step)
        return min(self.device_rate, self.loader_rate)

    @property
    def share_of_peak(self) -> float:
        return self.flops / self.step / self.peak_flops

    def as_dict(self) -> dict[str, Any]:
        more = {"objective": self.objective, "share_of_peak": self.share_of_peak, "images_per_second": self.rate}
        loading = None if self.loader_rate == float("inf") else self.loader_rate
        rates = {"loader_images_per_second": loading, "device_images_per_second": self.device_rate}
        return asdict(self) | more | rates | {"bottleneck": self.verdict()[0], "advice": self.verdict()[1]}

    def verdict(self) -> tuple[str, str]:
        """Return the bottleneck, and a sentence about it that names what would help."""
        if self.loader_rate < 0.95 * self.device_rate or (self.workers == 0 and self.decode > 0.1 * self.step):
            enough = max(1, round(0.5 + self.device_rate * (self.decode + self.crop) / self.images))
            if self.decode > self.crop:
                pack = "; `sslctl data pack` saves the decoding"
            else:
                pack = "; smaller or fewer crops (--multi-crop) cost less"
            return "loader", f"the loader holds the step up: --workers {enough} would feed it{pack}"
        parts = {"augment": self.augment, "objective": self.objective, "update": self.update}
        worst = max(parts, key=lambda name: parts[name])
        if parts[worst] < 0.1 * (self.step + self.augment):
            half = "" if self.precision != "float32" else " --precision bf16 where the device has it,"
            return (
                "encoder",
                f"the encoder itself is the limit:{half} smaller views (--multi-crop), or a smaller --arch",
            )
        remedy = {
            "augment": "augmentation on the device costs most beside the encoder: fewer or smaller views, or less blur",
            "objective": "heads and loss cost most beside the encoder: a larger --batch-size, or fewer outputs "
            "(--set method.prototypes=…)",
            "update": "optimizer and teacher cost most beside the encoder: a larger --batch-size means fewer updates",
        }
        return worst, remedy[worst]


def bench(t: Training, rounds: int = 7) -> Bench:
    """Measure ``t``, whose method trains on noise in the course of it and is of no use afterwards."""
    decode, crop, batch = time_loading(t)
    views = noise_views(t, t.spec.run.batch_size)
    contenders: dict[str, Run] = {
        "step": training_step(t, views),
        "encoder": EncoderOnly(t, views).step,
        "augment": lambda: t.augment(batch, t.device),
        "update": lambda: update(t),
    }
    begin = time.perf_counter()
    race({"step": contenders["step"]}, t.device, 0)
    first = time.perf_counter() - begin
    seconds = race(contenders, t.device, rounds)
    with uncompiled(), FlopCounterMode(display=False) as counter:
        contenders["step"]()
    return Bench(
        images=len(views.index),
        decode=decode,
        crop=crop,
        **{name: median(seconds[name]) for name in contenders},
        start=first if t.compiled else 0.0,
        ratio=median(a / b for a, b in zip(seconds["step"], seconds["encoder"], strict=True)),
        workers=0 if in_batches(t.source, t.device) else choose_workers(t.spec.data.workers),
        flops=float(counter.get_total_flops()),
        peak_flops=peak_flops(t),
        memory=peak_memory(t.device),
        precision=str(t.dtype).removeprefix("torch."),
    )


def time_loading(t: Training) -> tuple[float, float, Batch]:
    """Return the seconds to decode and to crop a batch on one core, and a batch as the loader gives it."""
    n = t.spec.run.batch_size
    order = torch.arange(n) % len(t.source)
    if t.source.array is not None and in_batches(t.source, t.device):
        images = torch.from_numpy(t.source.array[order.numpy()]).permute(0, 3, 1, 2)
        return 0.0, 0.0, Batch(order, torch.zeros_like(order), images=images)
    few = min(READ, n)
    begin = time.perf_counter()
    read = [next_readable(t.source, int(i))[1] for i in order[:few]]
    between = time.perf_counter()
    crops = [t.augment.geometric(image, 0, i) for i, image in enumerate(read)]
    end = time.perf_counter()
    repeated = [torch.stack([crops[i % few][view] for i in range(n)]) for view in range(len(crops[0]))]
    batch = Batch(order, torch.zeros_like(order), repeated)
    return (between - begin) * n / few, (end - between) * n / few, batch


def update(t: Training) -> None:
    """Do what follows the backward pass, with the gradients that the last step left."""
    if t.spec.optim.clip:
        clip_gradients(t.method, t.spec.optim.clip, each=t.spec.optim.clip_each)
    t.optimizer.step()
    t.method.after_step(Step(t.total // 2, 4 * t.total, t.per_epoch, t.spec.run.seed))


def peak_flops(t: Training) -> float:
    """Return the floating-point operations a second of a large matrix product in the run's precision."""
    x = torch.randn(SQUARE, SQUARE, device=t.device, dtype=t.dtype)
    seconds = race({"product": lambda: x @ x}, t.device, 5)
    return 2 * SQUARE**3 / min(seconds["product"])
