"""``sslctl rank``: runs in the order of measures that need no labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import output

if TYPE_CHECKING:
    from ..tasks.results import Ranking


def rank(result: Ranking) -> str:
    """Order encoders without labels.

    RankMe, LiDAR, alpha-ReQ, NESum, alignment and uniformity of their features; and, where the online probe or
    --labelled has scores, how far each measure agrees with them.

    Examples:

      sslctl rank runs/*

      sslctl rank runs/byol-resnet18-photos-1a2b3c/checkpoints --data photos/ --by lidar

      sslctl rank runs/* --data photos/ --labelled labelled/ --json
    """
    from ..evaluate.label_free.ranking import FEWEST, MEASURES

    measures = list(result.encoders[0].measures)
    scores = list(dict.fromkeys(key for encoder in result.encoders for key in encoder.scores))
    rows = [
        [
            e.name,
            *("nan" if (value := e.measures[m]) is None else f"{value:.4g}" for m in measures),
            *(f"{e.scores[s]:.4f}" if s in e.scores else "-" for s in scores),
        ]
        for e in result.encoders
    ]
    head = ["", *(MEASURES[m].title for m in measures), *scores]
    lines = [output.table(head, rows, right=range(1, len(head)))]
    lines.append(f"in the order of {MEASURES[result.by].title} ({MEASURES[result.by].source})")
    for score, by_measure in result.agreement.items():
        n = max(a.n for a in by_measure.values())
        words = ", ".join(
            f"{MEASURES[m].title} {a.spearman or 0.0:+.2f}/{a.kendall or 0.0:+.2f}" for m, a in by_measure.items()
        )
        lines.append(f"agreement with {score} over {n} encoders (Spearman/Kendall): {words}")
    if not result.agreement:
        lines.append(f"agreement is unknown: fewer than {FEWEST} encoders have a score (--labelled computes one)")
    return "\n".join(lines)
