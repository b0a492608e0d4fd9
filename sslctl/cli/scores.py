"""Scores as text: of knn, linear-eval and finetune."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import output

if TYPE_CHECKING:
    from ..tasks.results import ClassScore, ConfusionMatrix, Grid, Protocol, Scored, TargetsScore

SETTINGS = ("k", "temperature", "l2", "lr")
BASELINES = {"pixels": "raw pixels", "random": "random weights"}
MATRIX = 20  # classes of which all confusions fit a screen; of more, the most frequent are shown
MISTAKES = 20


def score_lines(result: ClassScore | TargetsScore) -> list[str]:
    """A score with its settings, its baselines and its details."""
    from ..tasks.results import TargetsScore

    lines = [f"{result.task}: {result}"]
    train, test = result.data.train.name, result.data.test.name
    where = train if train == test else f"{train} and {test}"
    sizes = f"  {result.n_train} training and {result.n_test} test images"
    if isinstance(result, TargetsScore):
        for column in result.columns:
            words = [f"{key} {value:.3f}" for key, value in column.model_dump().items() if isinstance(value, float)]
            lines.append(f"  {column.name}: {', '.join(words) or 'does not vary'}")
        return [*lines, f"{sizes}, {where}"]
    lines += _settings(result)
    if (best := result.grid_best) is not None:
        lines.append(f"  best of these, chosen on the test images and so flattering: {_words(best)}")
    lines += [f"  {BASELINES[key]}: {score}" for key, score in (result.baselines or {}).items()]
    lines.append(f"{sizes} of {result.classes} classes, {where}")
    return lines + _details(result)


def spread_lines(result: Scored) -> list[str]:
    """What several evaluations were averaged over, and how much they differ."""
    p = result.protocol
    return [
        f"  mean of {count} {name} of {what}; "
        f"they differ by {100 * (p.spread or 0.0):.1f} points (one standard deviation)"
        for name, count, what in (
            ("draws", p.draws, p.labels),
            ("seeds", p.seeds, "classifier and held-out part"),
        )
        if (count or 1) > 1
    ]


def _settings(result: ClassScore) -> list[str]:
    """The settings of the score; the spread where several were averaged; retrieval."""
    if result.grid:
        lines = [f"  {_words(setting)}: {setting}" for setting in result.grid]
    else:
        lines = [f"  {_words(result.protocol)}"]
    if result.protocol.leave_one_out:
        lines[-1] += "  each image tested on all others (leave one out)"
    lines += spread_lines(result)
    if (r := result.retrieval) is not None and r.map is not None and r.map_interval is not None:
        low, high = r.map_interval
        recall = "".join(f", recall@{k} {100 * share:.1f} %" for k, share in r.recall.items())
        lines.append(f"  mAP {100 * r.map:.1f} % ({100 * low:.1f} to {100 * high:.1f}){recall}")
    return lines


def _words(protocol: Protocol | Grid) -> str:
    values = protocol.model_dump()
    return ", ".join(f"{key} {values[key]:g}" for key in SETTINGS if key in values)


def _details(result: ClassScore) -> list[str]:
    """``--per-class`` and ``--confusion``."""
    lines = []
    if result.per_class is not None:
        lines.append(f"  mean of the classes: top-1 {100 * (result.mean_per_class or 0.0):.1f} %")
        rows = [(row.top1, row.interval, row) for row in result.per_class if row.top1 is not None and row.interval]
        for top1, (low, high), row in sorted(rows, key=lambda entry: entry[0]):
            share = f"{100 * top1:5.1f} % ({100 * low:.1f} to {100 * high:.1f})"
            lines.append(f"    {share}  {row.name}, {row.images} images")
    if result.confusion is not None:
        lines.append(_confusion(result.confusion))
    return lines


def _confusion(matrix: ConfusionMatrix) -> str:
    """All counts, or the most frequent mistakes of many classes."""
    classes, counts = matrix.classes, matrix.counts
    if len(classes) <= MATRIX:
        rows = [
            [str(i), name, *(str(n or ".") for n in row)]
            for i, (name, row) in enumerate(zip(classes, counts, strict=True), 1)
        ]
        numbers = [str(i) for i in range(1, len(classes) + 1)]
        right = [0, *range(2, len(classes) + 2)]
        return "  class (row) taken for (column)\n" + output.table(["", "", *numbers], rows, right, indent=4, gap=1)
    wrong = [(n, i, j) for i, row in enumerate(counts) for j, n in enumerate(row) if i != j and n]
    worst = sorted(wrong, key=lambda entry: -entry[0])[:MISTAKES]
    lines = [f"    {n:5d}  {classes[i]} taken for {classes[j]}" for n, i, j in worst]
    return "\n".join(["  most frequent mistakes", *lines])
