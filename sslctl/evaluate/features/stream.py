"""One pass of a frozen encoder over a set, batch by batch in its order: on one process or shared among several."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypedDict

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ...backbones import Backbone, pooled
from ...data.decode import BadImage
from ...data.source import Source
from ...data.workers import start_worker
from ...errors import CheckpointError
from ...runtime import distributed
from ...runtime.device import send
from ...views.evaluation import EvalTransform

Unreadable = list[tuple[int, str]]  # positions of images in their set, and why


class Chunk(NamedTuple):
    """What became of the next images of a set, up to the one at ``done``: features of those that can be read."""

    done: int
    positions: list[int]
    x: Tensor  # float32 (b, ...), on the CPU
    bad: Unreadable


class PassOptions(TypedDict, total=False):
    """The options of ``stream``, for functions that pass them on."""

    batch_size: int
    workers: int
    device: torch.device | None
    dtype: torch.dtype


class _Part(NamedTuple):
    """A batch on its way to the encoder; no tensor where no image of it can be read."""

    done: int
    good: list[int]
    pixels: Tensor | None  # normalised, (b, 3, S, S)
    bad: Unreadable


def stream(
    encoder: nn.Module,
    source: Source,
    transform: EvalTransform,
    *,
    batch_size: int = 256,
    workers: int = 0,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    start: int = 0,
) -> Generator[Chunk, None, None]:
    """Yield features of ``source`` from image ``start`` on, in order: ``encoder`` takes (B, 3, S, S).

    Of a backbone these are the pooled ones.

    Runs in eval mode without gradients, under autocast where ``dtype`` is not float32, and leaves the encoder as it
    was: its mode is put back, and RuntimeError is raised should any weight or statistic have been written to. On
    W processes each takes every W-th batch, and all of them get all chunks. A batch is what it would be on one
    process, and also after a ``start`` that is a multiple of ``batch_size``: so are its features, to the bit.
    No more than a few batches are in memory. Raises CheckpointError where a feature is not finite.
    """
    device = device or torch.device("cpu")
    encoder = encoder.to(device)
    batches = [range(i, min(i + batch_size, len(source))) for i in range(start, len(source), batch_size)]
    own = batches[distributed.rank() :: distributed.world_size()]
    with frozen(encoder), contextlib.closing(_parts(source, transform, own, workers, device)) as parts:
        encoded = _encode(encoder, parts, device, dtype)
        for _ in range(0, len(batches), distributed.world_size()):
            for chunk in distributed.collect(next(encoded, None)):
                if chunk is None:  # the last round has fewer batches than processes
                    continue
                if not bool(torch.isfinite(chunk.x).all()):
                    raise CheckpointError(
                        "the features are not finite", "take an earlier checkpoint, or --precision fp32"
                    )
                yield chunk


def _encode(encoder: nn.Module, parts: Iterable[_Part], device: torch.device, dtype: torch.dtype) -> Iterator[Chunk]:
    # A convolution in channels-last order is faster and needs no change of the weights.
    cnn = any(isinstance(module, Backbone) and module.channels_last for module in encoder.modules())
    layout = torch.channels_last if cnn else torch.contiguous_format
    waiting: tuple[Chunk, Any] | None = None  # an accelerator works on the next batch while this one is fetched
    for part in parts:
        x = torch.empty(0)
        if part.pixels is not None:
            # Not across the yield: both are the state of the thread.
            with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                x = pooled(encoder(part.pixels.contiguous(memory_format=layout))).float()
        chunk = Chunk(part.done, part.good, x.to("cpu", non_blocking=True), part.bad)
        copied: Any = torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        if copied is not None:
            copied.record()
        if waiting is not None:
            yield _arrived(*waiting)
        waiting = chunk, copied
    if waiting is not None:
        yield _arrived(*waiting)


def _arrived(chunk: Chunk, copied: Any) -> Chunk:
    if copied is not None:
        copied.synchronize()
    return chunk


class _Images(Dataset[tuple[int, Tensor | str]]):
    """What the loader's processes do: read and cut one image, or say why not."""

    def __init__(self, source: Source, transform: EvalTransform) -> None:
        self.source = source
        self.transform = transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> tuple[int, Tensor | str]:
        if i in self.source.bad:
            return i, self.source.bad[i]
        try:
            return i, self.transform.crop(self.source.read(i))
        except BadImage as e:
            return i, e.reason


def _parts(
    source: Source, transform: EvalTransform, batches: Sequence[range], workers: int, device: torch.device
) -> Generator[_Part, None, None]:
    if source.array is not None:
        for batch in batches:
            good = [i for i in batch if i not in source.bad]
            images = send(torch.from_numpy(source.array[good]).permute(0, 3, 1, 2), device)
            bad = [(i, source.bad[i]) for i in batch if i in source.bad]
            yield _Part(batch.stop, good, transform.batch(images) if good else None, bad)
        return
    loader: DataLoader[Any] = DataLoader(
        _Images(source, transform),
        batch_sampler=batches,  # type: ignore[arg-type]  # ranges: a million images are no million numbers
        num_workers=max(0, min(workers, len(batches) - 1)),  # no more than there are batches to share
        collate_fn=_collate,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # otherwise it draws from the global one
    )
    for batch, (good, pixels, bad) in zip(batches, loader, strict=True):
        # Bytes until here: a quarter of the numbers through shared memory and to the device.
        x = transform.normalise(send(pixels, device)) if good else None
        yield _Part(batch.stop, good, x, bad)


def _collate(items: list[tuple[int, Tensor | str]]) -> tuple[list[int], Tensor, Unreadable]:
    good = [(i, x) for i, x in items if isinstance(x, Tensor)]
    pixels = torch.stack([x for _, x in good]) if good else torch.empty(0)
    return [i for i, _ in good], pixels, [(i, reason) for i, reason in items if isinstance(reason, str)]


@contextlib.contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """Keep ``net`` in eval mode; then restore every mode. Raises RuntimeError if a tensor was written to."""
    modes = [(module, module.training) for module in net.modules()]
    tensors = [*net.parameters(), *net.buffers()]
    versions = [t._version for t in tensors]
    net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
    if [t._version for t in tensors] != versions:
        raise RuntimeError("the frozen encoder was written to while features were computed")
