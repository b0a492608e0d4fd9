"""``sslctl report``: what a run's files tell, as one page that opens offline; several runs side by side."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import SslctlError
from . import output
from .options import Device, Json


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="The page; by default RUN/report.html, or compare.html.", show_default=False)
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Draw the report of a run: curves, health, probes, views, neighbours, maps over time, spec.

    One HTML file without any address in it. `sslctl pretrain` writes it by itself when a run ends, however it ends.
    Given several runs, it puts them side by side.

    Examples:

      sslctl report runs/swav-resnet18-photos-1a2b3c

      sslctl report runs/a runs/b --out compare.html
    """
    from ..runtime.device import choose_device
    from ..visualize.report.page import write_report

    paths = list(dict.fromkeys(runs))
    page = out or (paths[0] / "report.html" if len(paths) == 1 else Path("compare.html"))
    begun = time.monotonic()
    missing = write_report(paths, page, device=choose_device(device))
    for line in missing:
        output.warn(f"not shown: {line}")
    seconds = round(time.monotonic() - begun, 2)
    output.emit(
        {"report": str(page), "runs": [str(p) for p in paths], "missing": missing, "seconds": seconds},
        as_json,
        str(page),
    )


def draw(run: Path, **given: Any) -> None:
    """The report of a run that has just ended, into its directory; what ``given`` holds goes to ``write_report``."""
    page = run / "report.html"
    try:
        from ..visualize.report.page import write_report

        missing = write_report([run], page, **given)
    except Exception as e:  # the run is done and saved: a page that cannot be drawn takes nothing from it
        reason = e.message if isinstance(e, SslctlError) else f"{type(e).__name__}: {e}"
        output.warn(f"report: {reason}; the run has none")
        return
    for line in missing:
        output.detail(f"not in the report: {line}")
    output.detail(f"report: {page}")
