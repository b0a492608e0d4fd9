"""requirements.lock and pyproject.toml agree, on every Python and system that we support."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
ENVIRONMENTS = [
    {"python_version": python, "python_full_version": f"{python}.7", "sys_platform": system}
    for python in ("3.11", "3.12", "3.13")
    for system in ("linux", "darwin")
]


def pins(lock: str) -> dict[str, list[tuple[Requirement, bool]]]:
    """Return by name every pinned release in the file, and whether pyproject.toml itself asks for it."""
    found: dict[str, list[tuple[Requirement, bool]]] = {}
    for block in re.split(r"\n(?=\S)", (ROOT / lock).read_text("utf-8")):
        if not block.startswith("#"):
            pin = Requirement(block.split(" \\\n")[0])
            found.setdefault(canonicalize_name(pin.name), []).append((pin, "sslctl (pyproject.toml" in block))
    return found


@pytest.mark.parametrize(
    ("lock", "words"),
    [
        ("requirements.lock", PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["dev"]),
        ("docs/requirements.lock", PROJECT["dependency-groups"]["docs"]),
    ],
)
def test_the_lock_has_what_pyproject_asks_for(lock: str, words: list[str]) -> None:
    locked = pins(lock)
    asked = {canonicalize_name(Requirement(word).name): Requirement(word) for word in words}
    direct = {name for name, releases in locked.items() if any(ours for _, ours in releases)}
    assert direct == asked.keys(), f"{lock} is stale: run `make lock`"
    for name, requirement in asked.items():
        for environment in ENVIRONMENTS:
            fitting = [pin for pin, _ in locked[name] if pin.marker is None or pin.marker.evaluate(environment)]
            versions = [next(iter(pin.specifier)).version for pin in fitting]
            assert len(versions) == 1 and versions[0] in requirement.specifier, (
                f"{lock} has {name} {versions} for {environment}, but pyproject.toml wants {requirement}: `make lock`"
            )


def test_every_release_is_pinned_with_its_hash() -> None:
    for lock in ("requirements.lock", "docs/requirements.lock"):
        blocks = re.split(r"\n(?=[^\s#])", (ROOT / lock).read_text("utf-8"))[1:]
        assert len(blocks) > 20
        assert all("==" in block and "--hash=sha256:" in block for block in blocks)


def test_both_locks_have_the_same_releases() -> None:
    """Both are installed into one environment."""
    first, second = pins("requirements.lock"), pins("docs/requirements.lock")
    shared = {name: {str(pin.specifier) for pin, _ in second[name]} for name in first.keys() & second.keys()}
    assert shared == {name: {str(pin.specifier) for pin, _ in first[name]} for name in shared}
