"""Linear evaluation as the papers do it, by name: SGD on augmented images through a backbone that does not move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...backbones import Backbone
from ...data.source import Source
from ...errors import DataError, DivergedError, SpecError, closest
from ...schedule import Schedule
from ..features.extract import FeatureSet, extract
from ..features.stream import frozen
from ..labelled_training import LabelledBatches, Task
from ..score import Score, judge, ranks, score
from .logistic import split
from .sgd_heads import Heads, Rule

HELD_OUT = 0.1  # of the training images, where there is something to choose
DINOV2_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)


class Read(NamedTuple):
    """What a head reads: [CLS] of the last ``blocks`` blocks, and the mean of the last one's patches (ViT alone)."""

    blocks: int = 1
    pooled: bool = False

    def __str__(self) -> str:
        return f"last {self.blocks} block{'s' * (self.blocks > 1)}{' and mean patch' * self.pooled}"


@dataclass(frozen=True)
class Protocol:
    """A paper's linear evaluation; ``rates`` are at batch size 256 where ``scaled``, and absolute otherwise."""

    name: str
    source: str
    rates: tuple[float, ...]
    scaled: bool
    epochs: float
    batch_size: int
    rule: Rule = "sgd"
    weight_decay: float = 0.0
    schedule: Literal["cosine", "step"] = "cosine"
    milestones: tuple[float, ...] = ()
    per_epoch: bool = True
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    reads: tuple[Read, ...] = (Read(),)
    std: float = 0.01  # of the weights a head begins with


PROTOCOLS = {
    p.name: p
    for p in (
        Protocol(
            "simclr", "arXiv 2002.05709, B.6", (0.1,), True, 90, 4096, "nesterov", per_epoch=False,
            interpolation="bicubic", std=0.0,
        ),
        Protocol(
            "moco", "facebookresearch/moco main_lincls.py", (30.0,), False, 100, 256, schedule="step",
            milestones=(60, 80),
        ),
        Protocol("swav", "facebookresearch/swav eval_linear.py", (0.3,), False, 100, 256, weight_decay=1e-6),
        Protocol("barlow", "facebookresearch/barlowtwins evaluate.py", (0.3,), False, 100, 256, weight_decay=1e-6),
        Protocol("simsiam", "facebookresearch/simsiam main_lincls.py --lars", (0.1,), True, 90, 4096, "larc"),
        Protocol("dino", "facebookresearch/dino eval_linear.py, ViT-S", (0.001,), True, 100, 1024, reads=(Read(4),)),
        Protocol(
            "dinov2", "facebookresearch/dinov2 eval/linear.py", DINOV2_RATES, True, 10, 128, per_epoch=False,
            interpolation="bicubic", reads=tuple(Read(n, pooled) for n in (1, 4) for pooled in (False, True)),
        ),
    )
}  # fmt: skip


def find_protocol(name: str, epochs: float | None = None) -> Protocol:
    """Return the protocol of that name, with length ``epochs`` if given. Raises SpecError."""
    if name not in PROTOCOLS:
        known = ["lbfgs", *PROTOCOLS]
        raise SpecError(f"--protocol '{name}': no such protocol{closest(name, known)}", f"one of {', '.join(known)}")
    return PROTOCOLS[name] if epochs is None else replace(PROTOCOLS[name], epochs=epochs)


class Reader(nn.Module):
    """What heads read of a frozen backbone, side by side: (B, 3, H, W) -> (B, sum of ``widths``)."""

    def __init__(self, backbone: Backbone, reads: Sequence[Read]) -> None:
        super().__init__()
        self.backbone = backbone
        vit = backbone.has_class_token
        most = backbone.depth if vit else 1
        # A net without [CLS] tokens has one feature; a ViT of fewer blocks gives all that it has.
        wanted = [Read(min(r.blocks, most), r.pooled) if vit else Read() for r in reads]
        self.reads = tuple(dict.fromkeys(wanted))
        self.tokens = vit
        self.widths = [backbone.dim * (r.blocks + r.pooled) for r in self.reads]

    def forward(self, x: Tensor) -> Tensor:
        if not self.tokens:
            return self.backbone(x).pooled.float()  # type: ignore[no-any-return]
        found = self.backbone(x, blocks=max(r.blocks for r in self.reads))
        patches = found.patches.mean(1)
        parts = [torch.cat([t[:, 0] for t in found.blocks[-r.blocks :]] + [patches] * r.pooled, 1) for r in self.reads]
        return torch.cat(parts, 1).float()

    def parts(self, x: Tensor) -> Sequence[Tensor]:
        """Return ``forward``'s columns by what they are read for."""
        return torch.split(x, self.widths, 1)


def evaluate(
    backbone: Backbone,
    task: Task,
    protocol: Protocol,
    seed: int = 0,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Score, FeatureSet]:
    """Return the score by ``protocol``, and the features of the test images.

    All heads learn from the same pass over augmented images. Where there are several, the one that does best on a
    seeded, stratified tenth of the *training* images is taken; these are not learnt from, and the test images decide
    nothing. ``protocol`` in the score says which was taken and on what. The backbone is in eval mode and stays as it
    is to the bit (RuntimeError otherwise). ``report`` hears (images seen, of how many).
    """
    reader = Reader(backbone.to(task.device), protocol.reads)
    several = len(reader.reads) * len(protocol.rates) > 1
    fit_part, held_out = task.train, None
    if several:
        keep, out = split(torch.as_tensor(task.train.labels), HELD_OUT, seed)
        if not len(out):
            raise DataError(
                f"{task.train.name}: no class has an image to spare for choosing a head", "--protocol lbfgs"
            )
        fit_part, held_out = (task.train.take(np.sort(part.numpy())) for part in (keep, out))
    heads = train(reader, fit_part, task, protocol, seed, report)
    tried = torch.zeros(len(heads), len(protocol.rates))
    if held_out is not None:
        found = _extract(reader, held_out, task)
        tried = torch.stack([_top1(h, x, found.labels) for h, x in zip(heads, reader.parts(found.x), strict=True)])
    tried[~torch.stack([h.finite.cpu() for h in heads])] = -1.0  # no numbers left: whatever it says is no score
    which, rate = divmod(int(tried.argmax()), len(protocol.rates))
    if tried[which, rate] < 0:
        raise DivergedError(f"--protocol {protocol.name}: the classifier diverged", "--protocol lbfgs")
    described = _entry(protocol, reader, fit_part, which, rate, seed)
    if held_out is not None:
        best = {str(read): float(row.max()) for read, row in zip(reader.reads, tried, strict=True)}
        described |= {"chosen_on": "training images held out", "held_out": len(held_out), "held_out_top1": best}
    test = _extract(reader, task.test, task)
    parts = torch.split(reader.parts(test.x)[which], 1024)
    logits = torch.cat([heads[which](x.to(task.device))[rate].cpu() for x in parts])
    return score(judge(logits, test.labels), len(fit_part), len(task.train.classes), described), test


def train(
    reader: Reader, images: Source, task: Task, protocol: Protocol, seed: int, report: Callable[[int, int], None]
) -> list[Heads]:
    """Return heads for each of ``reader.reads`` and each rate, trained in one pass over augmented ``images``."""
    batches = LabelledBatches(images, task, protocol.batch_size, protocol.epochs, seed, protocol.interpolation)
    schedule = Schedule(
        base=1.0, shape=protocol.schedule, per_epoch=protocol.per_epoch, milestones=_milestones(protocol)
    )
    factor = batches.size / 256 if protocol.scaled else 1.0
    heads = [
        Heads(
            width,
            len(images.classes),
            protocol.rates,
            rule=protocol.rule,
            weight_decay=protocol.weight_decay,
            std=protocol.std,
            seed=seed,
            device=task.device,
        )
        for width in reader.widths
    ]
    with frozen(reader), torch.no_grad():
        for step, x, labels in batches:
            with torch.autocast(task.device.type, task.dtype, enabled=task.dtype != torch.float32):
                found = reader(x)
            now = factor * schedule.at(step)
            for head, part in zip(heads, reader.parts(found), strict=True):
                head.step(part, labels, now)
            report(step.next.index * batches.size, step.total * batches.size)
    return heads


def _milestones(protocol: Protocol) -> tuple[float, ...]:
    """Return milestones at the same shares of the training as the paper's."""
    return tuple(m * protocol.epochs / PROTOCOLS[protocol.name].epochs for m in protocol.milestones)


def _extract(reader: Reader, source: Source, task: Task) -> FeatureSet:
    transform = task.image.transform()
    return extract(reader, source, transform, workers=task.workers, device=task.device, dtype=task.dtype)


def _top1(heads: Heads, x: Tensor, labels: Tensor) -> Tensor:
    """Return (L,) shares of images whose class comes first."""
    device = heads.weight.device
    right = torch.zeros(len(heads.rates))
    for part, own in zip(torch.split(x, 1024), torch.split(labels, 1024), strict=True):
        right += torch.stack([(ranks(one, own) == 0).sum() for one in heads(part.to(device)).cpu()])
    return right / len(x)


def _entry(protocol: Protocol, reader: Reader, images: Source, which: int, rate: int, seed: int) -> dict[str, Any]:
    batch = min(protocol.batch_size, len(images))
    return {
        "name": protocol.name,
        "source": protocol.source,
        "solver": protocol.rule,
        "epochs": protocol.epochs,
        "batch_size": batch,
        "lr": protocol.rates[rate] * (batch / 256 if protocol.scaled else 1.0),
        "reads": str(reader.reads[which]) if reader.tokens else "pooled map",
        "heads": len(reader.reads) * len(protocol.rates),
        "seed": seed,
    }
