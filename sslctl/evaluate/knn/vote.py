"""Weighted nearest-neighbour vote: every k and temperature from one pass over the similarities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import SpecError
from ..features.extract import FeatureSet, check_pair
from ..score import Predictions, Score, join, judge, score
from .retrieval import RECALL, Retrieval
from .search import BUDGET, neighbours


def knn(
    train: FeatureSet,
    test: FeatureSet,
    ks: Sequence[int],
    temperatures: Sequence[float],
    budget: int = BUDGET,
    retrieval: bool = False,
) -> list[Score]:
    """Scores of the weighted vote of InstDisc and DINO, one for each k and temperature, in the order given.

    Cosine similarity s; each of the k nearest training images votes for its class with weight exp(s / temperature)
    (``knn_classifier`` in facebookresearch/dino, eval_knn.py; Wu et al. 2018, section 3.4). As there, top-5 looks at
    the first min(5, k) classes. A k above the number of training images is lowered to it, with a note. Where ``test``
    is ``train``, each image is tested on all others (leave one out). ``retrieval`` adds mAP and recall@k to the first
    score. Memory beside the features is bounded by ``budget``, as ``neighbours`` says.
    Raises DataError where the sets do not go together, SpecError for a k or temperature that is none.
    """
    check_pair(train, test)
    alone = train is test
    candidates, classes = len(train.x) - alone, len(train.classes)
    if not ks or not temperatures or min(ks) < 1 or not min(temperatures) > 0:
        raise SpecError(
            f"knn: k {list(ks)} and temperature {list(temperatures)} must be positive", "for example --k 20"
        )
    held = {k: min(k, candidates) for k in ks}
    most = max(held.values())
    found: dict[tuple[int, float], list[Predictions]] = {(k, t): [] for k in ks for t in temperatures}
    ranking = Retrieval(train.labels, test.labels, alone) if retrieval else None
    deep = min(max(most, *RECALL), candidates) if ranking else most
    look = ranking.look if ranking else None
    start = 0
    for similarity, index in neighbours(train.x, test.x, deep, budget, alone=alone, look=look):
        own = test.labels[start : start + len(index)]
        start += len(index)
        near = train.labels[index]  # (b, k)
        if ranking:
            ranking.first(near, own)
        for k, t in found:
            found[k, t].append(judge(vote(similarity[:, : held[k]], near[:, : held[k]], classes, t), own))
    protocol = {"name": "knn", **({"leave_one_out": True} if alone else {})}
    notes = _notes(train, ks, candidates, alone)
    scores = [
        score(join(parts), candidates, classes, protocol | {"k": held[k], "temperature": t}, held[k], notes)
        for (k, t), parts in found.items()
    ]
    return scores if ranking is None else [ranking.beside(scores[0]), *scores[1:]]


def vote(similarity: Tensor, labels: Tensor, classes: int, temperature: float) -> Tensor:
    """Votes for each class: (b, k) similarities, the nearest first, and labels of neighbours -> (b, classes).

    Weights are relative to the nearest neighbour's, so that no temperature overflows; the order is the same.
    """
    weight = ((similarity - similarity[:, :1]) / temperature).exp()
    return similarity.new_zeros(len(similarity), classes).scatter_add_(1, labels, weight)


def _notes(train: FeatureSet, ks: Sequence[int], candidates: int, alone: bool) -> tuple[str, ...]:
    notes = [f"k {k} is more than the {candidates} training images; all vote" for k in ks if k > candidates]
    single = int((torch.bincount(train.labels, minlength=len(train.classes)) == 1).sum())
    if alone and single:
        notes.append(f"{single} classes have a single image, which no other can tell: it counts as wrong")
    return tuple(notes)
