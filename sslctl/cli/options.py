"""Options that mean the same in every command, each written once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer


def takes(name: str, make: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator of commands: their argument ``name`` is what ``make`` returns, whose parameters become options.

    They stand where the argument stood. An option of the command's own that has the name of one of them takes its
    place: both get its value.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        shared = inspect.signature(make, eval_str=True).parameters
        own = inspect.signature(command, eval_str=True).parameters
        every: dict[str, inspect.Parameter] = {}
        for p in own.values():
            every |= {k: v for k, v in shared.items() if k == name or k not in own} if p.name == name else {p.name: p}

        @functools.wraps(command)
        def run(**given: Any) -> None:
            made = make(**{k: given[k] for k in shared})
            command(**{k: v for k, v in given.items() if k in own} | {name: made})

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in every.values()]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


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
    typer.Option(
        "--fail-under",
        min=0,
        max=1,
        help="Exit with code 7 if top1 (of targets, their score) is lower.",
        show_default=False,
    ),
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
    typer.Option(
        "--draws",
        min=1,
        max=1000,
        help="Draws of --labels to average; 5 by default, 1 with a paper's protocol.",
        show_default=False,
    ),
]
Baselines = Annotated[bool, typer.Option("--baselines", help="Score raw pixels and random weights too.")]
PerClass = Annotated[bool, typer.Option("--per-class", help="Top-1 of each class, with its interval.")]
Confusion = Annotated[bool, typer.Option("--confusion", help="Which class is taken for which.")]
Targets = Annotated[
    str | None,
    typer.Option(
        "--targets",
        help="CSV of image names and 0/1 labels or numbers: predict these, not classes.",
        show_default=False,
    ),
]
