"""Options that mean the same in every command, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="Run directory, checkpoint, weights of other tools, or timm:NAME.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors and warnings only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
Workers = Annotated[int | None, typer.Option("--workers", help="Loader processes; by default as the machine allows.")]
Precision = Annotated[str, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Images in one forward pass.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything drawn.")]
LabelledData = Annotated[
    str | None, typer.Option("--data", help="Labelled images; by default those of the run.", show_default=False)
]
ValData = Annotated[
    str | None,
    typer.Option("--val-data", help="Images to test on; by default a part of --data.", show_default=False),
]
FailUnder = Annotated[
    float | None,
    typer.Option("--fail-under", min=0, max=1, help="Exit with code 7 if top1 is lower.", show_default=False),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what stands in the target.")]
Download = Annotated[bool, typer.Option("--download", help="Fetch a public set that is not there yet.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Take features anew; keep none beside the run.")]
Labels = Annotated[
    str | None,
    typer.Option("--labels", help="Labels to use: a share (0.01), 10-per-class, or a list file.", show_default=False),
]
Draws = Annotated[
    int | None,
    typer.Option("--draws", min=1, max=1000, help="Draws of --labels to average; 5 by default.", show_default=False),
]
