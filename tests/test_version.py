"""The version that the package states is the one that is installed and that the command prints."""

from __future__ import annotations

from importlib.metadata import version

import sslctl

from .cli.calling import call


def test_the_version_is_the_same_everywhere() -> None:
    assert call("--version").stdout.strip() == sslctl.__version__ == version("sslctl")
