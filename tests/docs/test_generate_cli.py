"""docs/cli.md is the help of the program as it is."""

from __future__ import annotations

import importlib.util
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_page_is_current() -> None:
    if f"typer=={version('typer')} " not in (ROOT / "requirements.lock").read_text("utf-8"):
        pytest.skip("the layout of help is typer's, and this is not the locked release")
    spec = importlib.util.spec_from_file_location("generate_cli", ROOT / "docs" / "generate_cli.py")
    assert spec and spec.loader
    generate_cli = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate_cli)
    assert (ROOT / "docs" / "cli.md").read_text("utf-8") == generate_cli.page(), "run `make docs`"
