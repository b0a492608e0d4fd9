"""The crop grammar: what it reads, what it refuses and in which words, and that it reads what it writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sslctl.errors import Exit, SpecError
from sslctl.spec.crops import CropPlan, Crops, parse_crops

sizes = st.integers(8, 2048)
counts = st.integers(1, 64)
scales = st.none() | st.tuples(st.floats(1e-12, 1), st.floats(1e-12, 1)).map(lambda pair: (min(pair), max(pair)))
crops = st.builds(Crops, counts, sizes, scales)


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("2x160+4x96", CropPlan(Crops(2, 160), Crops(4, 96))),
        ("2x224", CropPlan(Crops(2, 224))),
        ("2x224@0.4-1.0+6x96@0.05-0.4", CropPlan(Crops(2, 224, (0.4, 1.0)), Crops(6, 96, (0.05, 0.4)))),
        ("2x224@.4-1+6x96", CropPlan(Crops(2, 224, (0.4, 1.0)), Crops(6, 96))),
        ("2x32@1-1", CropPlan(Crops(2, 32, (1.0, 1.0)))),
        (" 2x160 + 4x96 ", CropPlan(Crops(2, 160), Crops(4, 96))),
        ("1x8", CropPlan(Crops(1, 8))),
        ("2x96+4x96", CropPlan(Crops(2, 96), Crops(4, 96))),
    ],
)
def test_reads(text: str, plan: CropPlan) -> None:
    assert parse_crops(text) == plan


@given(crops, st.none() | crops)
def test_reads_what_it_writes(large: Crops, small: Crops | None) -> None:
    if small is not None and small.size > large.size:
        large, small = small, large
    plan = CropPlan(large, small)
    assert parse_crops(str(plan)) == plan


def test_writes_scales_without_exponents() -> None:
    assert str(Crops(2, 160, (1e-05, 1.0))) == "2x160@0.00001-1"
    assert str(CropPlan(Crops(2, 160), Crops(4, 96, (0.05, 0.14)))) == "2x160+4x96@0.05-0.14"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'' is not COUNTxSIZE"),
        ("160", "'160' is not COUNTxSIZE"),
        ("2X160", "'2X160' is not COUNTxSIZE"),
        ("2x160,4x96", "'2x160,4x96' is not COUNTxSIZE"),
        ("2x160+", "'' is not COUNTxSIZE"),
        ("2x1 60", "'2x1 60' is not COUNTxSIZE"),
        ("2x-160", "'2x-160' is not COUNTxSIZE"),
        ("2.5x160", "'2.5x160' is not COUNTxSIZE"),
        ("2x160@0.4", "'2x160@0.4' is not COUNTxSIZE"),
        ("2x160@nan-1", "'2x160@nan-1' is not COUNTxSIZE"),
        ("2x160@1e-3-1", "'2x160@1e-3-1' is not COUNTxSIZE"),
        ("٢x160", "'٢x160' is not COUNTxSIZE"),
        ("0x160", "0 views of one size"),
        ("65x160", "65 views of one size"),
        ("2x7", "7 px; between 8 and 2048"),
        ("2x2049", "2049 px; between 8 and 2048"),
        ("2x160@0-1", "scale 0-1 is not a range"),
        ("2x160@0.5-0.4", "scale 0.5-0.4 is not a range"),
        ("2x160@0.5-1.1", "scale 0.5-1.1 is not a range"),
        ("2x160+4x96+4x64", "3 groups"),
        ("2x96+4x160", "local views (160 px) are larger than global ones (96 px)"),
    ],
)
def test_refuses_with_the_reason_the_grammar_and_an_example(text: str, reason: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_crops(text)
    assert caught.value.message.startswith(f"--multi-crop '{text}': ")
    assert reason in caught.value.message
    assert "COUNTxSIZE[@MIN-MAX]" in caught.value.hint
    assert "2x160+4x96" in caught.value.hint
    assert caught.value.exit_code == Exit.USAGE


def test_the_example_of_the_hint_is_itself_good() -> None:
    from sslctl.spec.crops import EXAMPLE

    for text in EXAMPLE.split(" or "):
        assert str(parse_crops(text)).startswith("2x")


@pytest.mark.parametrize(
    "text",
    ["9" * 5000 + "x160", "2x160@" + "9" * 5000 + "-1", "2x160+" * 10_000, "x" * 10**6],
    ids=["count", "scale", "groups", "word"],
)
def test_long_input_is_refused_in_a_short_message(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_crops(text)
    assert len(caught.value.message) < 300


@given(st.text(max_size=30) | st.text("0123456789x+@-. ", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        plan = parse_crops(text)
    except SpecError:
        return
    assert parse_crops(str(plan)) == plan
