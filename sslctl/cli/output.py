"""The one place that prints: results to stdout, everything else to stderr; of several processes, the first one."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from ..errors import Exit, SslctlError

_quiet = False
_verbose = False
_first = os.environ.get("RANK", "0") == "0"  # as torchrun sets it; the others compute the same and say nothing


def set_verbosity(quiet: bool, verbose: bool) -> None:
    global _quiet, _verbose
    _quiet, _verbose = quiet, verbose


def is_quiet() -> bool:
    return _quiet


def emit(result: dict[str, Any], as_json: bool, text: str) -> None:
    """The command's result on stdout: one JSON object, or ``text``."""
    if _first:
        print(json.dumps(result, allow_nan=False, ensure_ascii=True) if as_json else text, flush=True)


def note(message: str) -> None:
    """Progress and hints for people, on stderr; silent under ``-q``."""
    if not _quiet and _first:
        _stderr(message)


def detail(message: str) -> None:
    """What only ``-v`` shows."""
    if _verbose and not _quiet and _first:
        _stderr(message)


def warn(message: str) -> None:
    if _first:
        _stderr(f"warning: {message}")


def fail(error: SslctlError, as_json: bool) -> None:
    """An error: what, why and what to do next, on stderr; under ``--json`` also as the one object on stdout."""
    if as_json and _first:
        body = {"code": int(error.exit_code), "message": error.message, "hint": error.hint}
        print(json.dumps({"error": body}), flush=True)
    mark = "" if error.exit_code in (Exit.STOPPED, Exit.INTERRUPTED) else "error: "
    _stderr(mark + error.message)
    if error.hint:
        _stderr(f"  {error.hint}")


def is_terminal() -> bool:
    """Whether stderr can show colour and a moving bar."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _stderr(message: str) -> None:
    # Names of files and classes come from outside: no control character of theirs reaches the terminal.
    clean = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in message)
    try:
        print(clean, file=sys.stderr, flush=True)
    except (OSError, UnicodeEncodeError):
        if isinstance(sys.exc_info()[1], UnicodeEncodeError):
            print(clean.encode("ascii", "replace").decode(), file=sys.stderr, flush=True)
