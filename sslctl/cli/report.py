"""``sslctl report``: what a run's files tell, as one page that opens offline; several runs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..tasks.results import Report


def report(result: Report) -> str:
    """Draw the report of a run: curves, health, probes, views, neighbours, maps over time, spec.

    One HTML file without any address in it. `sslctl pretrain` writes it by itself when a run ends, however it ends.
    Given several runs, it puts them side by side.

    Examples:

      sslctl report runs/swav-resnet18-photos-1a2b3c

      sslctl report runs/a runs/b --out compare.html
    """
    return result.report
