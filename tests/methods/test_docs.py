"""docs/methods.md names every method, and only parameters and recipes that there are."""

from __future__ import annotations

import re
from pathlib import Path

from sslctl.methods import METHODS, load_method
from sslctl.methods.recipes import SMALL, published

TEXT = (Path(__file__).parents[2] / "docs" / "methods.md").read_text("utf-8")


def section(title: str) -> str:
    return TEXT.split(f"## {title}\n")[1].split("\n## ")[0]


def test_every_method_has_its_row() -> None:
    rows = [
        line.split("|")[1].strip() for line in section("Objectives and pairs").splitlines() if line.startswith("| ")
    ]
    for entry in METHODS.values():
        assert any(row.startswith(entry.title) for row in rows), entry.title


def test_every_switch_is_a_parameter() -> None:
    found = re.findall(r"^\| `([a-z0-9-]+)`: `([a-z_]+)", section("Ablations"), re.MULTILINE)
    assert len(found) > 10
    for name, parameter in found:
        assert parameter in load_method(name).Params.model_fields, f"{name}.{parameter}"


def test_the_commands_name_methods_and_recipes_that_exist() -> None:
    assert set(re.findall(r"--method ([a-z0-9-]+)", TEXT)) <= set(METHODS)
    assert set(re.findall(r"--recipe ([a-z0-9-]+)", TEXT)) <= {SMALL, *(recipe.name for recipe in published())}
