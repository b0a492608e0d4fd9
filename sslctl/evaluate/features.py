"""Frozen features of a set of images: one pass of an encoder that stays, to the bit, as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..backbones import Backbone
from ..data.decode import BadImage
from ..data.source import NO_LABELS, Source
from ..errors import CheckpointError, DataError
from ..views.evaluation import EvalTransform


@dataclass(frozen=True)
class Features:
    """Features of the readable images of a set, in its order."""

    x: Tensor  # float32 (n, d)
    labels: Tensor  # int64 (n,), -1 everywhere where the set has none
    index: Tensor  # int64 (n,), position in the set
    classes: list[str]
    skipped: list[tuple[str, str]]  # names of unreadable images, and why
    name: str
    fingerprint: str
    unreadable: list[tuple[int, str]] = field(default_factory=list)  # the same by position

    def take(self, rows: Tensor) -> Features:
        """The features of some images, by row."""
        return replace(self, x=self.x[rows], labels=self.labels[rows], index=self.index[rows])


Part = tuple[list[int], Tensor, list[tuple[int, str]]]  # positions, (b, 3, S, S), unreadable ones and why


class _Images(Dataset[tuple[int, Tensor | str]]):
    """What the loader's processes do: read and transform one image, or say why not."""

    def __init__(self, source: Source, transform: EvalTransform) -> None:
        self.source = source
        self.transform = transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> tuple[int, Tensor | str]:
        if i in self.source.bad:
            return i, self.source.bad[i]
        try:
            return i, self.transform(self.source.read(i))
        except BadImage as e:
            return i, e.reason


def extract(
    encoder: nn.Module,
    source: Source,
    transform: EvalTransform,
    *,
    batch_size: int = 256,
    workers: int = 0,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Features:
    """Features of all readable images of ``source`` from ``encoder``: (B, 3, S, S) -> (B, d).

    Runs in eval mode without gradients, under autocast where ``dtype`` is not float32, and leaves the encoder as it
    was: its mode is put back, and RuntimeError is raised should any weight or statistic have been written to. Images
    in memory need no loader processes. ``progress`` hears (images done, of how many).
    Raises DataError where no image can be read, CheckpointError where a feature is not finite.
    """
    device = device or torch.device("cpu")
    encoder = encoder.to(device)
    # A convolution in channels-last order is faster and needs no change of the weights.
    layout = torch.channels_last if isinstance(encoder, Backbone) and encoder.kind == "cnn" else torch.contiguous_format
    index: list[int] = []
    skipped: list[tuple[int, str]] = []
    found: list[Tensor] = []
    with frozen(encoder), torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        for good, x, bad in _parts(source, transform, batch_size, workers, device):
            if good:
                x = x.to(device, non_blocking=True, memory_format=layout)
                found.append(encoder(x).float().cpu())
            index += good
            skipped += bad
            progress(len(index) + len(skipped), len(source))
    return _features(source, found, index, skipped)


def check_pair(train: Features, test: Features) -> None:
    """DataError where the two sets cannot be one experiment."""
    for part in (train, test):
        if bool((part.labels < 0).any()):
            raise DataError(f"{part.name} has no labels to evaluate with", NO_LABELS)
    if train.classes != test.classes:
        raise DataError(
            f"the classes of {train.name} and {test.name} are not the same", "give sets whose class names agree"
        )
    if len(train.classes) < 2:
        raise DataError(f"{train.name} has a single class, '{train.classes[0]}'", "evaluation needs two or more")
    if train.x.shape[1] != test.x.shape[1]:
        raise DataError(f"features of {train.x.shape[1]} and {test.x.shape[1]} numbers do not compare")


def _features(source: Source, found: list[Tensor], index: list[int], skipped: list[tuple[int, str]]) -> Features:
    if not index:
        reason = skipped[0][1] if skipped else "there is none"
        raise DataError(f"{source.name}: none of its {len(source)} images can be read: {reason}")
    x = torch.cat(found)  # (n, d)
    if not bool(torch.isfinite(x).all()):
        raise CheckpointError("the features are not finite", "take an earlier checkpoint, or --precision fp32")
    return with_labels(source, x, torch.tensor(index), skipped)


def with_labels(source: Source, x: Tensor, index: Tensor, unreadable: list[tuple[int, str]]) -> Features:
    """Features ``x`` (n, d) of the images of ``source`` at ``index`` (n,), and what the set says of them."""
    labels = np.full(len(source), -1) if source.labels is None else source.labels
    skipped = [(source.item_name(i), reason) for i, reason in unreadable]
    own = torch.from_numpy(labels)[index]
    return Features(x, own, index, source.classes, skipped, source.name, source.fingerprint(), unreadable)


def _parts(
    source: Source, transform: EvalTransform, batch_size: int, workers: int, device: torch.device
) -> Iterator[Part]:
    if source.array is not None:
        for start in range(0, len(source), batch_size):
            here = range(start, min(start + batch_size, len(source)))
            good = [i for i in here if i not in source.bad]
            pixels = torch.from_numpy(source.array[good]).permute(0, 3, 1, 2).to(device)
            yield good, transform.batch(pixels), [(i, source.bad[i]) for i in here if i in source.bad]
        return
    loader: DataLoader[Any] = DataLoader(
        _Images(source, transform),
        batch_size=batch_size,
        num_workers=min(workers, -(-len(source) // batch_size) - 1),  # no more than there are batches to share
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # otherwise it draws from the global one
    )
    yield from loader


def _collate(items: list[tuple[int, Tensor | str]]) -> Part:
    good = [(i, x) for i, x in items if isinstance(x, Tensor)]
    x = torch.stack([x for _, x in good]) if good else torch.empty(0)
    return [i for i, _ in good], x, [(i, reason) for i, reason in items if isinstance(reason, str)]


@contextlib.contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """Eval mode for a while; then each module has its mode back, and no tensor was written to (else RuntimeError)."""
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
        raise RuntimeError("the frozen encoder was written to while features were taken")
