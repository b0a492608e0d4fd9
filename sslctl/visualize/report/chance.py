"""What each method's loss is when nothing is learnt, and what a falling one means: the yardstick of the loss curve."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ...errors import SslctlError
from ...spec.crops import parse_crops
from ...spec.schema import Spec


class Yardstick(NamedTuple):
    """``level`` is the loss at chance, with its formula; None where no number says it. ``text`` is what is normal."""

    level: float | None
    formula: str
    text: str


class Sizes(NamedTuple):
    p: dict[str, Any]  # the method's parameters
    batch: int  # global
    globals: int
    images: int


CONTRAST = "starts near chance and falls as images are told from others; the more others, the higher it ends"
CLUSTERS = "starts near ln K and falls as views agree on sharp prototypes; resting at ln K, the targets say nothing"
PRETEXT = "starts at chance and falls as the task is solved; at once near 0, there is a shortcut"


def yardstick(spec: Spec, images: int) -> Yardstick:
    """Of the loss of ``spec``'s method, on so many ``images`` (0 where that is not known)."""
    known = LOSSES.get(spec.method.name)
    if known is None:
        return Yardstick(None, "", "falls, faster at first")
    formula, level, text = known
    try:
        plan = parse_crops(spec.views.multi_crop or "2x224")
        sizes = Sizes(spec.method_params(), spec.run.batch_size, plan.globals.count, images)
        value = level(sizes)
    except (SslctlError, KeyError, ValueError, TypeError, ArithmeticError, AttributeError):
        value = None  # parameters of another version
    return Yardstick(value, formula if value is not None else "", text)


def _queue(s: Sizes) -> float:
    return math.log(1 + (min(s.p["queue"], s.images) if s.images else s.p["queue"]))


def _clusters(s: Sizes) -> float:
    counts = s.p["prototypes"]
    counts = counts if isinstance(counts, list | tuple) else [counts]
    return sum(map(math.log, counts)) / len(counts)


def _simsiam(s: Sizes) -> float | None:
    return 0.0 if s.p["similarity"] == "cosine" else None


# Formula, level at chance, what is normal. The losses are those of sslctl/methods, with the authors' factors.
LOSSES: dict[str, tuple[str, Callable[[Sizes], float | None], str]] = {
    "instdisc": (
        "ln n", lambda s: math.log(s.images) if s.images and not s.p["negatives"] else None,
        "falls as images are told apart; over the first epochs the memory is random, and little happens",
    ),
    "end-to-end": ("ln B", lambda s: math.log(s.batch), CONTRAST),
    "moco-v1": ("ln(1 + queue)", _queue, f"{CONTRAST}; may rise while the queue fills with real keys"),
    "moco-v2": ("ln(1 + queue)", _queue, f"{CONTRAST}; may rise while the queue fills with real keys"),
    "moco-v3": ("4 τ ln B", lambda s: 4 * s.p["temperature"] * math.log(s.batch), CONTRAST),
    "simclr": ("2 ln(1 + G(B-1))", lambda s: 2 * math.log(1 + s.globals * (s.batch - 1)), CONTRAST),
    "nnclr": ("ln B", lambda s: math.log(s.batch), f"{CONTRAST}; neighbours are never quite the image itself"),
    "deepcluster-v2": ("ln K", _clusters, f"zero in the first epoch, before there are clusters; then {CLUSTERS}"),
    "swav": ("ln K", _clusters, CLUSTERS),
    "byol": (
        "4", lambda s: 4.0,
        "4 where predictions and targets are unrelated, 0 where equal; it falls fast and may rise again. Not a score: "
        "near 0 together with a std near 0 it has collapsed",
    ),
    "simsiam": (
        "0", _simsiam,
        "from 0, unrelated, towards -1, equal. Not a score: at -1 at once, with a std near 0, it has collapsed",
    ),
    "barlow-twins": (
        "D", lambda s: float(s.p["out"]),
        "about D where the views' numbers are unrelated; falls fast, then slowly, and never near 0",
    ),
    "vicreg": (
        "variance weight", lambda s: float(s.p["variance"]),
        "falls fast, then slowly; resting at the weight of the variance term, it has collapsed",
    ),
    "dino": ("ln K", _clusters, f"{CLUSTERS}. For the first epochs it may stay there"),
    "rotnet": ("ln turns", lambda s: math.log(s.p["turns"]), PRETEXT),
    "jigsaw": ("ln permutations", lambda s: math.log(s.p["permutations"]), PRETEXT),
    "cpc": ("", lambda s: None, PRETEXT),
    "supervised": ("", lambda s: None, "starts at ln(classes); near 0, the training images are known by heart"),
}  # fmt: skip
