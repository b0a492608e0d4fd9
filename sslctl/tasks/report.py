"""Runs as pages and tables: the report of one or several, and their comparison."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ..errors import SpecError, SslctlError
from . import options as opt
from .feedback import Feedback, Notes
from .options import Option

if TYPE_CHECKING:
    from .results import Comparison, Report

Runs = Annotated[Sequence[str | Path] | str | Path, Option("Run directories.", metavar="RUN...", type=list[Path])]
PICTURES = ("png", "svg", "pdf")


@opt.task
def report(
    runs: Runs,
    *,
    out: Annotated[Path | None, Option("The page; by default RUN/report.html, or compare.html.")] = None,
    device: opt.Device = "auto",
    notes: Notes | None = None,
) -> Report:
    """Write the report of a run, or of several side by side: one HTML file that opens without a network.

    Raises CheckpointError where a run has no metrics.
    """
    from ..runtime.device import choose_device
    from ..visualize.report.page import write_report
    from .results import Report

    paths = _paths(runs)
    page = Path(out) if out else paths[0] / "report.html" if len(paths) == 1 else Path("compare.html")
    begun = time.monotonic()
    missing = write_report(paths, page, device=choose_device(device))
    feedback = Feedback(None, notes)
    for line in missing:
        feedback.warn(f"not shown: {line}")
    seconds = round(time.monotonic() - begun, 2)
    return Report(report=str(page), runs=[str(path) for path in paths], missing=missing, seconds=seconds)


@opt.task
def compare(
    runs: Runs,
    *,
    out: Annotated[Path, Option("Picture of the curves: .png, .svg or .pdf.")] = Path("compare.png"),
    notes: Notes | None = None,
) -> Comparison:
    """Compare runs of pretraining and fine-tuning: their scores in a table, their curves in one picture.

    Raises CheckpointError where a run has no metrics.
    """
    from ..files import write_atomically
    from ..visualize.comparison import plot, read_run
    from .results import ComparedRun, Comparison

    out = Path(out)
    kind = out.suffix.lower().lstrip(".")
    if kind not in PICTURES:
        raise SpecError(f"--out '{out}': not a picture of a known kind", "end it in .png, .svg or .pdf")
    found = [read_run(path) for path in _paths(runs)]
    write_atomically(out, plot(found, kind))
    Feedback(None, notes).note(f"curves in {out}")
    return Comparison(runs=[ComparedRun(**run.row) for run in found], plot=str(out))


def draw_report(run: Path, feedback: Feedback, **options: Any) -> None:
    """Write the report of a run that has just ended into its directory; ``options`` are those of ``write_report``."""
    page = run / "report.html"
    try:
        from ..visualize.report.page import write_report

        missing = write_report([run], page, **options)
    except Exception as e:  # the run is finished and saved: a page that fails must not turn that into an error
        reason = e.message if isinstance(e, SslctlError) else f"{type(e).__name__}: {e}"
        feedback.warn(f"report: {reason}; the run has none")
        return
    for line in missing:
        feedback.detail(f"not in the report: {line}")
    feedback.detail(f"report: {page}")


def _paths(runs: Sequence[str | Path] | str | Path) -> list[Path]:
    """Each run once."""
    return list(dict.fromkeys(map(Path, [runs] if isinstance(runs, str | Path) else runs)))
