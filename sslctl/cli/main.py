"""The command line: which commands there are, and what becomes of their errors."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import Exit, SslctlError, ran_out_of_memory
from . import output
from .attn_map import attn_map
from .bench import bench
from .compare import compare
from .data import info, pack
from .embed import embed
from .export import export
from .finetune import finetune
from .import_ import import_
from .inspect_ import inspect_
from .knn import knn
from .linear_eval import linear_eval
from .methods import methods
from .neighbours import neighbours
from .options import Quiet, Verbose
from .pca import pca
from .pretrain import pretrain
from .projection import projection
from .rank import rank
from .report import report

app = typer.Typer(
    name="sslctl",
    help="Learn image representations without labels: pretrain, evaluate, look, export.",
    epilog="Exit codes: 0 done, 1 a bug, 2 usage or spec, 3 data, 4 checkpoint refused, 5 environment, "
    "6 diverged or collapsed, 7 a gate was missed, 75 stopped and resumable, 130 Ctrl-C.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


ROOM = (
    "lower --batch-size or --workers; for pretrain `sslctl bench --find-batch` tells what fits, and --set "
    "optim.accumulate=2 takes a batch in two passes"
)


def guard(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with ``-q`` and ``-v``, and its errors turned into messages and exit codes."""

    @functools.wraps(command)
    def run(*args: Any, quiet: bool = False, verbose: bool = False, **kwargs: Any) -> None:
        as_json = bool(kwargs.get("as_json"))
        output.set_verbosity(quiet, verbose)
        try:
            command(*args, **kwargs)
        except SslctlError as e:
            if os.environ.get("SSLCTL_DEBUG") == "1":
                traceback.print_exc()
            output.fail(e, as_json)
            raise typer.Exit(int(e.exit_code)) from e
        except KeyboardInterrupt as e:
            output.fail(SslctlError("interrupted", exit_code=Exit.INTERRUPTED), as_json)
            raise typer.Exit(int(Exit.INTERRUPTED)) from e
        except BrokenPipeError as e:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left: nobody to tell
            raise typer.Exit(int(Exit.DONE)) from e
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as e:  # whatever else is left is a bug of ours, and no traceback is for the person
            if ran_out_of_memory(e):
                output.fail(SslctlError("out of memory", ROOM, Exit.ENVIRONMENT), as_json)
                raise typer.Exit(int(Exit.ENVIRONMENT)) from e
            _report_bug(e, as_json)
            raise typer.Exit(int(Exit.BUG)) from e

    plain = inspect.signature(command, eval_str=True)
    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in (("quiet", Quiet), ("verbose", Verbose))
    ]
    run.__signature__ = plain.replace(parameters=[*plain.parameters.values(), *extra])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in [*plain.parameters.values(), *extra]}
    return run


def _report_bug(error: Exception, as_json: bool) -> None:
    """A traceback is for us: into a file, with two lines for the person."""
    with tempfile.NamedTemporaryFile("w", prefix="sslctl-crash-", suffix=".txt", delete=False) as file:
        file.write(f"sslctl {__version__}, python {sys.version}\nargv: {sys.argv}\n\n")
        traceback.print_exception(error, file=file)
    if os.environ.get("SSLCTL_DEBUG") == "1":
        traceback.print_exception(error)
    hint = f"this is a bug of sslctl; the traceback is in {file.name}"
    output.fail(SslctlError(f"{type(error).__name__}: {error}", hint, Exit.BUG), as_json)


def _version(wanted: bool) -> None:
    if wanted:
        output.emit({}, False, __version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Learn image representations without labels: pretrain, evaluate, look, export."""


COMMANDS: dict[str, Callable[..., None]] = {
    "pretrain": pretrain,
    "methods": methods,
    "knn": knn,
    "linear-eval": linear_eval,
    "finetune": finetune,
    "compare": compare,
    "embed": embed,
    "rank": rank,
    "bench": bench,
    "report": report,
    "attn-map": attn_map,
    "pca": pca,
    "neighbours": neighbours,
    "projection": projection,
    "export": export,
    "import": import_,
    "inspect": inspect_,
}
GROUPS: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "data": ("Look at a set of images, or pack it for fast reading.", {"info": info, "pack": pack}),
}
for _name, _command in COMMANDS.items():
    app.command(_name)(guard(_command))
for _name, (_help, _commands) in GROUPS.items():
    _group = typer.Typer(help=_help, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
    for _word, _command in _commands.items():
        _group.command(_word)(guard(_command))
    app.add_typer(_group, name=_name)


def main() -> None:
    app()
