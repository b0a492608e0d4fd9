"""The table of layouts: names of their own, documented, and told apart."""

from __future__ import annotations

from pathlib import Path

from sslctl.exchange.imports import formulas as formulas
from sslctl.exchange.imports.layouts import LAYOUTS


def test_layouts_have_names_of_their_own_and_those_with_teachers_say_which_they_take() -> None:
    names = [layout.name for layout in LAYOUTS]
    assert len(set(names)) == len(names)
    for layout in LAYOUTS:
        assert layout.momentum if layout.branch == "momentum" else layout.online


def test_the_page_lists_every_layout_in_the_order_in_which_they_are_tried() -> None:
    page = (Path(__file__).parents[3] / "docs" / "checkpoints.md").read_text("utf-8")
    first, second = page.split("| `--layout` |")[1:]
    listed = [name for line in first.splitlines()[2:] if line.startswith("| ")
              for name in line.split("|")[1].strip().split(", ")]  # fmt: skip
    assert listed == [layout.name for layout in LAYOUTS if not layout.by_name_only]
    by_name = {name for line in second.splitlines()[2:] if line.startswith("| ")
               for name in line.split("|")[1].strip().split(", ")}  # fmt: skip
    assert by_name == {layout.name for layout in LAYOUTS if layout.by_name_only}
