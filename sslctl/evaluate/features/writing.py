"""Features of a set written into one file, image by image: memory stays small, and a killed pass goes on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from torch import nn

from ...data.source import Source
from ...data.unreadable import check_bad, nothing_readable
from ...errors import CheckpointError, DataError, SpecError, closest
from ...runtime import distributed
from ...views.evaluation import EvalTransform
from .files import FORMATS, Rows
from .journal import Spool
from .stream import PassOptions, Unreadable, stream


@dataclass(frozen=True)
class Order:
    """The file to write: ``out`` in the format ``form``; its bytes depend on ``key`` alone."""

    out: Path
    form: str
    key: str  # sha256 over encoder, images, transform, arithmetic, features and batch size
    meta: dict[str, Any]  # JSON, stored in the file where the format has room for it


@dataclass(frozen=True)
class WrittenFeatures:
    """The images that were written, and those that could not be read."""

    images: int
    shape: tuple[int, ...]  # of one image's features
    skipped: Unreadable
    before: int  # images that an interrupted pass had done
    names: Path | None  # the file of names and labels, where the file itself does not hold them


def find_form(out: Path, form: str | None) -> str:
    """Return the format named, or the file suffix's. Raises SpecError, or MachineError for a missing library."""
    named = form or out.suffix.lower().lstrip(".")
    if named not in FORMATS:
        what = f"--format '{form}'" if form else f"--out '{out}'"
        known = list(FORMATS)
        raise SpecError(f"{what}: no format of embeddings{closest(named, known)}", f"--format {', '.join(known)}")
    FORMATS[named].require()
    return named


def write_features(
    encoder: nn.Module,
    source: Source,
    transform: EvalTransform,
    order: Order,
    *,
    fail_on_bad: bool = False,
    starting: Callable[[int], None] = lambda before: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **options: Unpack[PassOptions],
) -> WrittenFeatures:
    """Write features of all readable images of ``source``: ``encoder`` takes (B, 3, S, S) and gives (B, ...).

    ``order.out`` is there in the end, whole, or not at all; what an interrupted pass has done lies hidden beside it,
    and the same order goes on from there to the same bytes. On several processes the first one writes. ``starting``
    hears how many images are done already. Raises DataError where no image can be read, or with ``fail_on_bad`` where
    one cannot; CheckpointError where a feature is not finite; MachineError where the disk refuses.
    """
    spools: list[Spool] = []  # one, on the first process

    def begin() -> tuple[int, Unreadable]:
        spools.append(Spool(order.out, order.key))
        return spools[0].done, spools[0].bad

    start, known = distributed.by_first(begin)
    starting(start)
    bad = dict(known)
    try:
        check_bad(source, bad, fail=fail_on_bad, limit=1)
        with closing(stream(encoder, source, transform, start=start, **options)) as chunks:
            for chunk in chunks:
                bad |= chunk.bad
                check_bad(source, bad, fail=fail_on_bad, limit=1)
                for spool in spools:
                    spool.add(chunk)
                progress(chunk.done, len(source))
        if len(bad) == len(source):
            raise nothing_readable(source, bad)
    except BaseException as e:
        hopeless = isinstance(e, CheckpointError | DataError)  # to go on would end here again
        for spool in spools:
            (spool.remove if hopeless else spool.keep)()
        raise
    form = FORMATS[order.form]
    for spool in spools:
        form.seal(spool, Rows(source, bad, order.meta))
    shape = distributed.by_first(lambda: spools[0].shape)
    names = order.out.with_suffix(".jsonl") if form.names_apart else None
    return WrittenFeatures(len(source) - len(bad), shape, sorted(bad.items()), start, names)
