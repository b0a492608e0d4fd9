"""Write docs/cli.md: the help of every command, as `sslctl COMMAND --help` prints it."""

from __future__ import annotations

import os
from pathlib import Path

from typer.testing import CliRunner

from sslctl.cli.main import COMMANDS, GROUPS, app

PAGE = Path(__file__).with_name("cli.md")
INTRODUCTION = """\
# Commands

The help of every command, generated from the program by `make docs`. Which codes commands exit with, and what goes to
stdout and stderr: [In pipelines](index.md#in-pipelines).
"""


def page() -> str:
    """Return the text of docs/cli.md."""
    os.environ.update(COLUMNS="100", NO_COLOR="1")
    names = [*COMMANDS, *(f"{group} {word}" for group, (_, words) in GROUPS.items() for word in words)]
    return INTRODUCTION + "".join(f"\n## sslctl {name}\n```text\n{help_of(name)}```\n" for name in names)


def help_of(command: str) -> str:
    """Return what ``sslctl COMMAND --help`` prints, 100 characters wide."""
    result = CliRunner().invoke(app, [*command.split(), "--help"], prog_name="sslctl", terminal_width=100)
    return "\n".join(line.rstrip() for line in result.output.strip().splitlines()) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
