"""``sslctl knn``: how well neighbours in feature space share a class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .scores import score_lines

if TYPE_CHECKING:
    from ..tasks.results import ClassScore


def knn(result: ClassScore) -> str:
    """Score an encoder by its nearest neighbours.

    The weighted vote of InstDisc and DINO; nothing is trained. A single labelled set is scored leave-one-out.

    Examples:

      sslctl knn runs/swav-resnet18-demo-1a2b3c --baselines

      sslctl knn last.safetensors --data labelled/ --k 10,20,100 --json

      sslctl knn last.safetensors --data labelled/ --labels 10-per-class

      sslctl knn last.safetensors --data labelled/ --per-class --confusion --retrieval

      sslctl knn last.safetensors --data train/ --val-data test/ --fail-under 0.5
    """
    return "\n".join(score_lines(result))
