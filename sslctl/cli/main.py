"""The command line: which commands there are, and which task each of them calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from ..tasks import data as data_tasks
from ..tasks import exchange, maps, similarity
from ..tasks import report as reports
from ..tasks.embed import embed as embed_task
from ..tasks.finetune import finetune as finetune_task
from ..tasks.knn import knn as knn_task
from ..tasks.linear import linear_eval as linear_task
from ..tasks.rank import rank as rank_task
from ..version import __version__
from . import bench, methods, output, pretrain
from .attn_map import attn_map
from .command import command
from .compare import compare
from .data import info, pack
from .embed import embed
from .export import export
from .finetune import finetune
from .import_ import import_
from .inspect_ import inspect_
from .knn import knn
from .linear_eval import linear_eval
from .neighbours import neighbours
from .pca import pca
from .projection import projection
from .rank import rank
from .report import report

HELP = "Learn image representations without labels: pretrain, evaluate, look, export."
PLAIN: dict[str, Any] = {"no_args_is_help": True, "rich_markup_mode": None, "pretty_exceptions_enable": False}

app = typer.Typer(
    name="sslctl",
    help=HELP,
    epilog="Exit codes: 0 done, 1 a bug, 2 usage or spec, 3 data, 4 checkpoint refused, 5 environment, "
    "6 diverged or collapsed, 7 a gate was missed, 75 stopped and resumable, 130 Ctrl-C.",
    **PLAIN,
)


def _version(wanted: bool) -> None:
    if wanted:
        output.emit(__version__)
        raise typer.Exit


@app.callback(help=HELP)
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the program itself."""


# Of each command: the function that it calls, and the one that makes text of the result.
Commands = dict[str, tuple[Callable[..., Any], Callable[[Any], str]]]
COMMANDS: Commands = {
    "pretrain": (pretrain.run, pretrain.pretrain),
    "methods": (methods.run, methods.methods),
    "knn": (knn_task, knn),
    "linear-eval": (linear_task, linear_eval),
    "finetune": (finetune_task, finetune),
    "compare": (reports.compare, compare),
    "embed": (embed_task, embed),
    "rank": (rank_task, rank),
    "bench": (bench.run, bench.bench),
    "report": (reports.report, report),
    "attn-map": (maps.attn_map, attn_map),
    "pca": (maps.pca, pca),
    "neighbours": (similarity.neighbours, neighbours),
    "projection": (similarity.projection, projection),
    "export": (exchange.export, export),
    "import": (exchange.import_weights, import_),
    "inspect": (exchange.inspect, inspect_),
}
GROUPS: dict[str, tuple[str, Commands]] = {
    "data": (
        "Look at a set of images, or pack it for fast reading.",
        {"info": (data_tasks.data_info, info), "pack": (data_tasks.data_pack, pack)},
    ),
}
for _name, _command in COMMANDS.items():
    app.command(_name)(command(*_command))
for _name, (_help, _commands) in GROUPS.items():
    _group = typer.Typer(help=_help, **PLAIN)
    for _word, _command in _commands.items():
        _group.command(_word)(command(*_command))
    app.add_typer(_group, name=_name)


def main() -> None:
    app()
