"""A task as a command: options from its parameters, its result as text or JSON, its errors as exit codes."""

from __future__ import annotations

import inspect
import os
import sys
import tempfile
import traceback
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ..errors import Exit, SpecError, SslctlError, ran_out_of_memory
from ..tasks.feedback import Note
from ..tasks.options import Option, flag, list_options
from ..version import __version__
from . import output

ROOM = (
    "lower --batch-size or --workers; for pretrain `sslctl bench --find-batch` tells what fits, and --set "
    "optim.accumulate=2 takes a batch in two passes"
)
LISTENERS: dict[str, Callable[..., None]] = {
    "progress": output.display.count,
    "notes": output.note,
    "callback": output.display.train,
}
COMMON = {
    "as_json": Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Errors and warnings only.")],
    "verbose": Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")],
}


def command(task: Callable[..., Any], text: Callable[[Any], str]) -> Callable[..., None]:
    """The command that calls ``task`` and prints its result by ``text``, whose docstring is the command's help."""
    words = list_options(task)
    listeners = {name: LISTENERS[name] for name, _, _ in words if name in LISTENERS}

    def run(as_json: bool, quiet: bool, verbose: bool, **options: Any) -> None:
        output.set_verbosity(quiet, verbose)
        try:
            try:
                result = task(**options, **listeners)
            finally:
                output.display.close()
            output.emit(result.model_dump_json() if as_json else text(result))
            code = _code(result)
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
        except Exception as e:  # whatever else is left is a bug of ours, and no traceback is for the person
            if ran_out_of_memory(e):
                output.fail(SslctlError("out of memory", ROOM, Exit.ENVIRONMENT), as_json)
                raise typer.Exit(int(Exit.ENVIRONMENT)) from e
            _report_bug(e, as_json)
            raise typer.Exit(int(Exit.BUG)) from e
        if code:
            raise typer.Exit(int(code))

    own = [(name, _typed(name, kind, default), default) for name, kind, default in words if name not in LISTENERS]
    parameters = [_parameter(*one) for one in [*own, *((name, kind, False) for name, kind in COMMON.items())]]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__doc__ = text.__doc__
    return run


def _code(result: Any) -> Exit:
    """The exit code that a result means: a gate that was missed, images that cannot be read."""
    gate = getattr(result, "gate", None)
    if gate is not None and not gate.passed:
        name, value = result.headline
        output.note(Note(f"{name} {value:.4f} is under --fail-under {gate.fail_under:g}", "warning"))
        return Exit.GATE
    return Exit.DATA if getattr(result, "failed", None) else Exit.DONE


def _report_bug(error: Exception, as_json: bool) -> None:
    """A traceback is for us: into a file, with two lines for the person."""
    with tempfile.NamedTemporaryFile("w", prefix="sslctl-crash-", suffix=".txt", delete=False) as file:
        file.write(f"sslctl {__version__}, python {sys.version}\nargv: {sys.argv}\n\n")
        traceback.print_exception(error, file=file)
    if os.environ.get("SSLCTL_DEBUG") == "1":
        traceback.print_exception(error)
    hint = f"this is a bug of sslctl; the traceback is in {file.name}"
    output.fail(SslctlError(f"{type(error).__name__}: {error}", hint, Exit.BUG), as_json)


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _typed(name: str, annotation: Any, default: Any) -> Any:
    """The annotation of a task's parameter as typer reads it."""
    kind, option = typing.get_args(annotation)
    assert isinstance(option, Option), name
    shown = default not in (None, False, inspect.Parameter.empty)
    more: dict[str, Any] = {"help": option.help, "show_default": shown}
    names = [flag(name, option)] if option.names or kind is bool else []
    if option.min is not None or option.max is not None:
        more |= {"min": option.min, "max": option.max}
    if isinstance(option.type, types.FunctionType):
        return Annotated[Any, typer.Option(flag(name), metavar="INTEGER|auto", parser=_parser(option.type), **more)]
    kind = kind if option.type is None else option.type
    if default is None and kind is not bool:
        kind = kind | None
    if option.metavar:
        return Annotated[kind, typer.Argument(metavar=option.metavar, **more)]
    return Annotated[kind, typer.Option(*names, **more)]


def _parser(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def checked(word: str) -> Any:
        try:
            return parse(word)
        except SpecError as e:
            raise typer.BadParameter(e.message) from e

    return checked
