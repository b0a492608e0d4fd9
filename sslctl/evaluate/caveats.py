"""Caveats of a score: images that are in both sets, classes without images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.source import Source, printable
from .score import Score
from .train_test_overlap import find_overlap

EXAMPLES = 3

Findings = tuple[dict[str, Any], list[str]]  # fields of the result, and sentences for people


def overlap(train: Source, test: Source, score: Score | None = None, index: Tensor | None = None) -> Findings:
    """Return test images that are training images as well, and the top-1 of ``score`` without them.

    ``index`` (n,) are the positions in ``test`` of the images that ``score`` is of.
    """
    copies = find_overlap(train, test)
    pairs = list(copies.pairs.items())
    examples = [[test.item_name(i), train.item_name(j)] for i, j in pairs[:EXAMPLES]]
    facts: dict[str, Any] = {
        "by": copies.by,
        "images": len(pairs),
        "share": len(pairs) / len(test),
        "examples": examples,
    }
    if not pairs:
        return {"overlap": facts}, []
    where = "have a copy among the others" if train is test else "are in the training set as well"
    note = f"{len(pairs)} of {len(test)} test images {where} (same {copies.by}), for example {' = '.join(examples[0])}"
    if score is not None and score.predictions is not None and index is not None:
        clean = ~torch.isin(index, torch.tensor(list(copies.pairs)))
        draws = len(score.predictions.rank) // len(index)
        right = (score.predictions.rank == 0)[clean.repeat(draws)]
        if len(right):
            facts["top1_without"] = float(right.double().mean())
            note += f"; without them top-1 is {100 * facts['top1_without']:.1f} %"
    return {"overlap": facts}, [note]


def absent_classes(train: Source, test: Source) -> Findings:
    """Return classes of which one of the two sets has no image."""
    facts: dict[str, Any] = {}
    notes = []
    for key, source in (("train", train), ("test", test)):
        if source.labels is None:
            continue
        counts = np.bincount(source.labels, minlength=len(source.classes))
        names = [name for name, n in zip(source.classes, counts, strict=True) if n == 0]
        facts[key] = names
        if names:
            some = ", ".join(map(printable, names[:EXAMPLES])) + ", …" * (len(names) > EXAMPLES)
            kind = "training" if key == "train" else key
            notes.append(f"{len(names)} of {len(source.classes)} classes have no {kind} image: {some}")
    return ({"classes_absent": facts} if any(facts.values()) else {}), notes
