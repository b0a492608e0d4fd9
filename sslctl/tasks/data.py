"""What a set of images is, and the same set packed for fast reading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Unpack

from ..errors import SpecError
from . import options as opt
from .feedback import Feedback
from .options import Option

if TYPE_CHECKING:
    from .results import DataInfo, DataPack


@opt.task
def data_info(
    data: opt.Set,
    *,
    split: opt.Split = "train",
    decode: Annotated[bool, Option("Read every image whole, not only its header.")] = False,
    download: opt.Download = False,
    **listeners: Unpack[opt.Listeners],
) -> DataInfo:
    """Summarise a set of images: classes, sizes, what cannot be read, what is there twice."""
    from ..data.summary import summarise
    from .encoders import open_as_is
    from .results import DataInfo, Unreadable

    feedback = Feedback.of(opt.with_defaults(opt.Listeners, listeners))
    source = open_as_is(data, split, download, feedback)
    found = summarise(source, decode=decode, report=_counter(feedback, source.name, len(source)))
    unreadable = [Unreadable(name=name, reason=reason) for name, reason in found.unreadable]
    return DataInfo(name=source.name, **found._asdict() | {"unreadable": unreadable})


@opt.task
def data_pack(
    data: opt.Set,
    out: Annotated[Path, Option("File to write, ending in .pack.")],
    size: Annotated[int, Option("Shorter side in px; smaller images stay as they are.", min=8, max=4096)],
    *,
    square: Annotated[bool, Option("Cut to the central square; otherwise stored whole.")] = False,
    split: opt.Split = "train",
    threads: Annotated[int | None, Option("By default one for every CPU.", min=1, max=256)] = None,
    download: opt.Download = False,
    force: opt.Force = False,
    **listeners: Unpack[opt.Listeners],
) -> DataPack:
    """Decode a set once and store its pixels at the size that training needs, as one file.

    Raises SpecError where ``out`` exists, DataError where no image can be read, MachineError where the disk refuses.
    """
    out = Path(out)
    if out.suffix.lower() != ".pack":
        raise SpecError(f"--out {out}: a pack's name ends in .pack", f"--out {out.with_suffix('.pack')}")
    if out.exists() and not force:
        raise SpecError(f"--out {out}: exists", "--force replaces it")

    from ..data.packing import write_pack
    from .encoders import open_as_is
    from .results import DataPack, Failed, Unreadable

    feedback = Feedback.of(opt.with_defaults(opt.Listeners, listeners))
    source = open_as_is(data, split, download, feedback)
    done = write_pack(
        source, out, size, square=square, threads=threads, report=_counter(feedback, source.name, len(source))
    )
    failed = [Failed(image=source.item_name(i), reason=reason) for i, reason in sorted(done.bad.items())]
    feedback.warn_unreadable(failed, len(source), most=5)
    return DataPack(
        pack=str(out),
        images=done.images,
        bytes=done.bytes,
        classes=len(source.classes),
        size=size,
        cut="square" if square else "whole",
        unreadable=[Unreadable(name=one.image, reason=one.reason) for one in failed],
    )


def _counter(feedback: Feedback, name: str, total: int) -> Callable[[int], None]:
    count = feedback.counter(name)
    return lambda done: count(done, total)
