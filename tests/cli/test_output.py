"""What a person sees: progress on a terminal and elsewhere, tables, levels of notes."""

from __future__ import annotations

import io
import sys

import pytest

from sslctl.cli.output import Display, note, set_verbosity, sparkline, table
from sslctl.tasks.feedback import Note

LINE = {"epoch": 1.0, "lr": 0.01, "images_per_second": 500.0, "data_wait": 0.02, "total": 9}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = Terminal()
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream)
    set_verbosity(quiet=False, verbose=False)
    return stream


def trained(health: str = "learning · rank 87/128") -> None:
    display = Display()
    display.train({"resumed": 0})
    for step in range(1, 10):
        display.train(LINE | {"step": step, "loss": 10.0 - step, "health": health})
    display.close()


def test_a_sparkline_has_the_shape_of_its_values() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([5.0, 5.0]) == "▁▁"
    assert sparkline([float(100 - i) for i in range(100)], width=4) == "█▆▃▁"


def test_a_terminal_shows_the_loss_and_the_health(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)
    trained()
    assert "loss █▇▆▅▅▄▃▂▁ 1.0000" in stream.getvalue()
    assert "\x1b[32mlearning · rank 87/128\x1b[0m" in stream.getvalue()  # green
    trained("collapsed · rank 1/128")
    assert "\x1b[1;31mcollapsed" in stream.getvalue()


def test_a_pass_over_images_has_a_labelled_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, display = terminal(monkeypatch), Display()
    for done in (3, 10):
        display.count("features of 10 [bold]images", done, 10)
    assert "features of 10 [bold]images" in stream.getvalue() and "10/10" in stream.getvalue()


@pytest.mark.parametrize("a_terminal", [True, False])
def test_without_a_terminal_or_with_no_color_the_lines_are_plain(
    a_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if a_terminal:
        monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal() if a_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    set_verbosity(quiet=False, verbose=False)
    trained()
    text = stream.getvalue()
    assert "\x1b" not in text and "▁" not in text
    first, last = text.splitlines()
    assert first.startswith("step 1/9 · epoch 1.0 · loss 9.0000 · lr 0.01 · 500 images/s · waiting 2 % · learning")
    assert last.startswith("step 9/9")


def test_a_table_aligns_columns_and_takes_cells_as_they_are() -> None:
    text = table(["name", "n"], [["a [red]", "5"], ["b" * 200, "1000"]], right=[1], indent=2)
    head, first, second = text.splitlines()
    assert first == "  a [red]" + " " * 193 + "     5" and second == f"  {'b' * 200}  1000"
    assert head.endswith("   n")


def test_quiet_keeps_warnings_and_verbose_adds_details(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet, verbose, expected in [(True, False, "warning: w\n"), (False, True, "n\nwarning: w\nd\n")]:
        set_verbosity(quiet, verbose)
        for text, level in [("n", "note"), ("w", "warning"), ("d", "detail")]:
            note(Note(text, level))  # type: ignore[arg-type]
        assert capsys.readouterr().err == expected
    set_verbosity(quiet=False, verbose=False)
