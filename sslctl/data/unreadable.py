"""When unreadable images are an error: in a strict run, above a share of the set, or when nothing else is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ..errors import DataError
from .decode import BadImage, Pixels
from .source import Source


def next_readable(source: Source, index: int) -> tuple[int, Pixels, list[tuple[int, str]]]:
    """Return the first readable image from ``index`` on (cyclically), its pixels, and the bad ones before.

    Raises DataError when the whole set is unreadable.
    """
    bad: list[tuple[int, str]] = []
    for offset in range(len(source)):
        at = (index + offset) % len(source)
        try:
            return at, source.read(at), bad
        except BadImage as e:
            bad.append((at, e.reason))
    raise nothing_readable(source, dict(bad))


def check_some_readable(source: Source, probes: int = 16) -> None:
    """Raises DataError where no image can be read; most often one image tells, spread probes tell the rest."""
    for i in sorted({len(source) * k // probes for k in range(probes)}):
        try:
            source.read(i)
            return
        except BadImage:
            continue
    next_readable(source, 0)


def check_bad(source: Source, bad: Mapping[int, str], *, fail: bool, limit: float) -> None:
    """Raises DataError where ``bad`` (index → reason) is too much: any with ``fail``, or above ``limit`` of the set."""
    if bad and fail:
        index = min(bad)
        raise DataError(
            f"{source.item_name(index)}: {bad[index]}",
            "replace the file, or --set data.bad_images=skip goes on without it",
        )
    if len(bad) > limit * len(source):
        first = min(bad)
        raise DataError(
            f"{len(bad)} of {len(source)} images of {source.name} cannot be read, more than {limit:.2%}:"
            f" {_reasons(bad)}; first {source.item_name(first)}",
            "replace those files, or raise the limit with --set data.bad_limit=0.1",
        )


def nothing_readable(source: Source, bad: Mapping[int, str]) -> DataError:
    return DataError(
        f"none of the {len(source)} images of {source.name} can be read: {_reasons(bad)}",
        "check that the files are whole images",
    )


def _reasons(bad: Mapping[int, str], most: int = 3) -> str:
    counted = Counter(bad.values()).most_common()
    more = [f"{len(counted) - most} other reasons"] if len(counted) > most else []
    return ", ".join([f"{count}x {reason}" for reason, count in counted[:most]] + more)
