"""Results: their JSON is plain and strict, and docs/json.md describes every key of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from sslctl.tasks.results import ClassRow, Failed, Gate, MethodList, PatchColours

ROOT = Path(__file__).parents[2]


def test_the_json_is_ascii_on_one_line_whatever_names_hold() -> None:
    failed = [Failed(image="caf\u00e9\udcff\n.png", reason="x")]
    result = PatchColours(
        out="o",
        sheet="s",
        arch="a",
        area=1,
        whole=True,
        explained={"first": 0.5, "colours": []},  # type: ignore[arg-type]
        images=[],
        failed=failed,
    )
    text = result.model_dump_json()
    assert text.isascii() and len(text.splitlines()) == 1
    assert json.loads(text)["failed"] == [{"image": "caf\u00e9\udcff\n.png", "reason": "x"}]


def test_what_was_not_set_is_left_out_and_what_was_none_is_null() -> None:
    row = ClassRow(name="a", images=0, top1=None, interval=None)
    assert row.model_dump() == {"class": "a", "images": 0, "top1": None, "interval": None}
    assert list(MethodList(methods=[]).model_dump()) == ["schema", "sslctl", "methods"]


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(ValidationError, match="finite"):
        Gate(fail_under=float("nan"), passed=True)


def test_the_reference_is_current(tmp_path: Path) -> None:
    script = ROOT / "docs" / "json_reference.py"
    subprocess.run([sys.executable, str(script), str(tmp_path / "json.md")], check=True, timeout=120)
    current = (ROOT / "docs" / "json.md").read_text("utf-8")
    assert (tmp_path / "json.md").read_text("utf-8") == current, "run: python docs/json_reference.py"
