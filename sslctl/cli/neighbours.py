"""``sslctl neighbours``: images and their nearest neighbours in feature space, as one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..tasks.results import Neighbours


def neighbours(result: Neighbours) -> str:
    """Show images and their nearest neighbours by cosine similarity.

    Where images have classes, neighbours of the query's class are framed in green, others in red.

    Examples:

      sslctl neighbours runs/swav-resnet18-photos-1a2b3c photos/ --out near.png

      sslctl neighbours last.safetensors photos/ --queries mine.jpg --k 12 --json
    """
    return result.out
