"""The crop grammar: ``2x160+4x96`` is two global views of 160 px and four local views of 96 px."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

from ..errors import SpecError

GRAMMAR = "COUNTxSIZE[@MIN-MAX][+COUNTxSIZE[@MIN-MAX]]"
EXAMPLE = "2x160+4x96 or 2x224@0.4-1.0+6x96@0.05-0.4"

_PART = re.compile(r"([0-9]{1,9})x([0-9]{1,9})(?:@([0-9]*\.?[0-9]+)-([0-9]*\.?[0-9]+))?")


class Crops(NamedTuple):
    """``count`` square views of ``size`` px.

    ``scale`` is the range of the crop's share of the image's area; None is the method's own.
    """

    count: int  # type: ignore[assignment]  # tuple has a method of that name, which nobody needs
    size: int
    scale: tuple[float, float] | None = None

    def __str__(self) -> str:
        scale = "" if self.scale is None else f"@{_plain(self.scale[0])}-{_plain(self.scale[1])}"
        return f"{self.count}x{self.size}{scale}"


class CropPlan(NamedTuple):
    """The views of one image: ``globals`` always, ``locals`` where multi-crop is on."""

    globals: Crops
    locals: Crops | None = None

    def __str__(self) -> str:
        return "+".join(str(part) for part in self if part is not None)


def _plain(x: float) -> str:
    """Write every digit of ``x`` without an exponent, which the grammar does not have: 1e-05 -> 0.00001."""
    text = format(Decimal(repr(x)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def parse_crops(text: str) -> CropPlan:
    """Return the plan that ``text`` describes.

    Raises SpecError, with the grammar and an example, where it describes none.
    """

    def refuse(reason: str) -> SpecError:
        shown = text if len(text) <= 60 else text[:60] + "…"
        return SpecError(f"--multi-crop '{shown}': {reason}", f"write {GRAMMAR}, for example {EXAMPLE}")

    parts: list[Crops] = []
    for word in text.split("+"):
        match = _PART.fullmatch(word.strip())
        if match is None:
            raise refuse(f"'{word.strip()[:40]}' is not COUNTxSIZE with an optional @MIN-MAX")
        count, size = int(match[1]), int(match[2])
        scale = None if match[3] is None else (float(match[3]), float(match[4]))
        if not 1 <= count <= 64:
            raise refuse(f"{count} views of one size; between 1 and 64 make sense")
        if not 8 <= size <= 2048:
            raise refuse(f"{size} px; between 8 and 2048 make sense")
        if scale is not None and not 0 < scale[0] <= scale[1] <= 1:
            raise refuse(f"scale {match[3][:20]}-{match[4][:20]} is not a range within (0, 1]")
        parts.append(Crops(count, size, scale))
    if len(parts) > 2:
        raise refuse(f"{len(parts)} groups; the first are global views, an optional second are local ones")
    if len(parts) == 2 and parts[1].size > parts[0].size:
        raise refuse(f"local views ({parts[1].size} px) are larger than global ones ({parts[0].size} px)")
    return CropPlan(*parts)
