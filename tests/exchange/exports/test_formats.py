"""The table of formats: found by name, documented, and refused where a library is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sslctl.errors import MachineError, SpecError
from sslctl.exchange.exports.formats import FORMATS, Format, check_sizes, find_format
from tests.fresh import warm  # noqa: F401 - a fixture

from .encoders import encoder


def test_the_page_on_exports_has_every_format() -> None:
    page = (Path(__file__).parents[3] / "docs" / "export.md").read_text("utf-8")
    for name, form in FORMATS.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert all(f"`{suffix}`" in row for suffix in form.suffixes)
        assert row.endswith(f"| `sslctl[{form.extra}]` |" if form.extra else "| – |")


def test_a_name_that_is_none_brings_the_nearest() -> None:
    assert find_format("onnx") is FORMATS["onnx"]
    with pytest.raises(SpecError, match="--format 'onxx'.*did you mean 'onnx'"):
        find_format("onxx")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_a_writer_and_its_libraries_are_those_of_an_extra(name: str) -> None:
    form = FORMATS[name]
    assert callable(form.writer()) and bool(form.needs) == bool(form.extra)
    assert form.tolerance <= 1e-4


def test_a_missing_library_is_named_with_the_line_to_type() -> None:
    form = Format(
        "a file",
        "some library",
        "torchvision_file.write_pth",
        needs=("no_such_module", "torch", "nor_this_one"),
        extra="some",
    )
    with pytest.raises(MachineError, match="needs no_such_module and nor_this_one") as refused:
        form.require()
    assert refused.value.hint == "pip install 'sslctl[some]'"
    for known in FORMATS.values():
        known.require()


def test_check_sizes_are_open_ones_and_multiples_of_the_patch() -> None:
    assert check_sizes(encoder("vit", 32)) == [(32, 32), (56, 48)]
    assert check_sizes(encoder("vit", 32), native=True) == [(32, 32)]
    assert check_sizes(encoder("resnet", 64)) == [(64, 64), (88, 80)]
