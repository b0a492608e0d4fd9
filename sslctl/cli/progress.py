"""What a person sees while a run goes: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from . import output

BARS = "▁▂▃▄▅▆▇█"
PLAIN_INTERVAL = 10.0  # seconds between lines where there is no terminal


class Progress:
    """Shows the metric lines that the engine reports."""

    def __init__(self, total: int, per_epoch: int) -> None:
        self.total = total
        self._shown = 0.0
        self._begun = time.monotonic()
        self._first = 0
        self._bar: Any = None
        self._live: Any = None
        self._losses: list[float] = []

    def __enter__(self) -> Progress:
        if output.is_terminal() and not output.is_quiet():
            from rich.console import Console
            from rich.live import Live
            from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            self._task = self._bar.add_task("", total=self.total)
            self._live = Live(self._bar, console=Console(stderr=True), refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._live.stop()

    def report(self, line: dict[str, Any]) -> None:
        if "resumed" in line:
            self._resumed(line)
            return
        if "probe_knn" in line:
            output.note(describe_probe(line))
        if "loss" not in line:  # a probe between two metric lines
            return
        if self._bar is not None:
            self._losses.append(line["loss"])
            self._bar.update(self._task, completed=line["step"])
            self._live.update(self._below_the_bar(line))
            return
        text = describe(line)
        now = time.monotonic()
        if now - self._shown >= PLAIN_INTERVAL or line["step"] == self.total:
            self._shown = now
            done = max(1, line["step"] - self._first)
            left = (self.total - line["step"]) * (now - self._begun) / done
            output.note(f"step {line['step']}/{self.total} · {text} · {left:.0f} s left")

    def _below_the_bar(self, line: dict[str, Any]) -> Any:
        """Figures, the loss so far, and the health in words; wrapped where the window is narrow."""
        from rich.console import Group
        from rich.text import Text

        word = str(line["health"]).split(" ")[0]
        health = Text(str(line["health"]), {"learning": "green", "collapsed": "bold red"}.get(word, "yellow"))
        return Group(self._bar, figures(line), Text(f"loss {sparkline(self._losses)} {line['loss']:.4f}"), health)

    def _resumed(self, line: dict[str, Any]) -> None:
        self._first = line["resumed"]
        self._begun = time.monotonic()
        for reason in line["skipped"]:
            output.warn(f"{reason}; using an older checkpoint")
        if line["resumed"]:
            share = 100 * line["resumed"] / self.total
            output.note(f"going on from step {line['resumed']} ({share:.0f} % done)")


def describe_probe(line: dict[str, Any]) -> str:
    return (
        f"probe at step {line['step']}: knn {100 * line['probe_knn']:.1f} %, "
        f"linear {100 * line['probe_linear']:.1f} %, in {line['probe_seconds']:.1f} s"
    )


def describe(line: dict[str, Any]) -> str:
    return f"{figures(line)} · {line['health']}"


def figures(line: dict[str, Any]) -> str:
    return (
        f"epoch {line['epoch']:.1f} · loss {line['loss']:.4f} · lr {line['lr']:.2g} · "
        f"{line['images_per_second']:.0f} images/s · waiting {100 * line['data_wait']:.0f} %"
    )


def typical(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Rates of a run and shares of its time, medians over its metric ``lines``, and the most memory in any of them."""
    found = {}
    for key in ("images_per_second", "data_wait", "augment", "memory_gib"):
        values = [line[key] for line in lines if key in line]
        if values:
            found[key] = max(values) if key == "memory_gib" else median(values)
    return found


def describe_typical(found: dict[str, float]) -> str:
    waiting, augment, memory = (found.get(key, 0.0) for key in ("data_wait", "augment", "memory_gib"))
    return (
        f"{found.get('images_per_second', 0.0):.0f} images/s · waiting for data {waiting:.1%} · "
        f"augmentation {augment:.1%} · step {max(0.0, 1 - waiting - augment):.1%} · {memory:.2f} GiB at most"
    )


def sparkline(values: list[float], width: int = 48) -> str:
    """``values`` as at most ``width`` bars of eight heights, each the mean of its stretch; the least is the lowest."""
    cells = min(width, len(values))
    parts = [values[i * len(values) // cells : (i + 1) * len(values) // cells] for i in range(cells)]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means), max(means)
    return "".join(BARS[round((v - low) / (high - low) * 7) if high > low else 0] for v in means)
