"""Progress on a terminal: health in words, the loss as a line of bars; elsewhere plain lines, and no colour."""

from __future__ import annotations

import io
import sys

import pytest

from sslctl.cli import output
from sslctl.cli.progress import Progress, sparkline

LINE = {"epoch": 1.0, "lr": 0.01, "images_per_second": 500.0, "data_wait": 0.02, "health": "learning · rank 87/128"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, health: str = "learning · rank 87/128") -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    output.set_verbosity(quiet=False, verbose=False)  # whatever a command before has left
    with Progress(total=9, per_epoch=3) as progress:
        for step in range(1, 10):
            progress.report(LINE | {"step": step, "loss": 10.0 - step, "health": health})
    return stream.getvalue()


def test_a_sparkline_has_the_shape_of_its_values() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([5.0, 5.0]) == "▁▁"
    assert sparkline([float(100 - i) for i in range(100)], width=4) == "█▆▃▁"


def test_a_terminal_shows_the_loss_and_the_health(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    text = shown(monkeypatch, Terminal())
    assert "loss █▇▆▅▅▄▃▂▁ 1.0000" in text
    assert "\x1b[32mlearning · rank 87/128\x1b[0m" in text  # green
    assert "\x1b[1;31mcollapsed" in shown(monkeypatch, Terminal(), "collapsed · rank 1/128")


@pytest.mark.parametrize("terminal", [True, False])
def test_without_a_terminal_or_with_no_color_the_lines_are_plain(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not terminal:
        monkeypatch.delenv("NO_COLOR")
    text = shown(monkeypatch, Terminal() if terminal else io.StringIO())
    assert "\x1b" not in text and "▁" not in text
    first, last = text.splitlines()
    assert first.startswith("step 1/9 · epoch 1.0 · loss 9.0000 · lr 0.01 · 500 images/s · waiting 2 % · learning")
    assert last.startswith("step 9/9")
