"""``sslctl compare``: runs side by side, as a table and as curves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import SpecError
from . import output
from .options import Json

KINDS = ("png", "svg", "pdf")


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Picture of the curves: .png, .svg or .pdf.")] = Path("compare.png"),
    as_json: Json = False,
) -> None:
    """Compare runs: their scores in a table, their curves in one picture.

    Takes directories of pretraining (loss, and the online probe) and of fine-tuning (accuracy on the test images).

    Examples:

      sslctl compare runs/scratch runs/tuned --out scratch-or-not.png

      sslctl compare runs/* --json
    """
    kind = out.suffix.lower().lstrip(".")
    if kind not in KINDS:
        raise SpecError(f"--out '{out}': not a picture of a known kind", "end it in .png, .svg or .pdf")

    from ..files import write_atomically
    from ..visualize.comparison import plot, read_run, table

    told = [read_run(path) for path in dict.fromkeys(runs)]
    write_atomically(out, plot(told, kind))
    output.note(f"curves in {out}")
    output.emit({"runs": [run.row for run in told], "plot": str(out)}, as_json, table(told))
