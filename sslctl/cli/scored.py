"""The result of a command that scored an encoder: for people, as JSON, and its gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from ..errors import Exit
from . import output

if TYPE_CHECKING:
    from ..data import Source
    from ..evaluate.score import Score
    from .evaluating import Experiment, Frozen, Outcome

SHOWN = ("k", "temperature", "l2", "lr")
WORDS = {"top1": "top-1"}
NAMES = {"pixels": "raw pixels", "random": "random weights"}
MATRIX = 20  # classes of which all confusions fit a screen; of more, the most frequent are shown
MISTAKES = 20

Result = dict[str, Any]


def finish(task: str, given: Frozen, experiment: Experiment, outcome: Outcome) -> None:
    """Print the result; exit with code 7 where its top-1, that of the first score, is under ``--fail-under``."""
    from ..evaluate.caveats import absent_classes, overlap

    scores, beside, (train, test) = outcome
    first = scores[0]
    result: Result = {"task": task, **first.as_dict()}
    result["protocol"] |= circumstances(experiment)
    lines = [f"{task}: {first}", *_settings(scores)]
    if len(scores) > 1:
        best = max(scores, key=lambda s: s.top1)
        result["grid"] = [dict(s.protocol) | {"top1": s.top1, "top5": s.top5} for s in scores]
        result["grid_best"] = dict(best.protocol) | {"top1": best.top1, "chosen_on": "test images"}
        lines.append(f"  best of these, chosen on the test images and so flattering: {_words(best)}")
    if beside:
        result["baselines"] = {name: score.as_dict() for name, score in beside.items()}
        lines += [f"  {NAMES[key]}: {score}" for key, score in beside.items()]
    notes = [line for score in scores for line in score.notes]
    for facts, said in (
        overlap(experiment.train, experiment.test, first, test.index),
        absent_classes(experiment.train, experiment.test),
    ):
        result |= facts
        notes += said
    unread = dict([*train.skipped, *test.skipped])
    result |= provenance(experiment)
    result |= {"skipped": [{"image": name, "reason": reason} for name, reason in unread.items()]}
    where = train.name if train.name == test.name else f"{train.name} and {test.name}"
    lines.append(f"  {first.n_train} training and {first.n_test} test images of {first.classes} classes, {where}")
    lines += _details(first, test.classes, result, given)
    if unread:
        name, reason = next(iter(unread.items()))
        output.warn(f"{len(unread)} images cannot be read, the first: {name}: {reason}")
    settle(result, notes, "top1", given.fail_under)
    close(result, lines, "top1", given.as_json)


def circumstances(experiment: Experiment) -> Result:
    """Of the protocol, what the encoder and the machine say."""
    return {
        "arch": experiment.encoder.spec.backbone.arch,
        "size": experiment.encoder.meta.image.size,
        "precision": str(experiment.dtype).removeprefix("torch."),
    }


def provenance(experiment: Experiment) -> Result:
    """Which images, by their fingerprints, and which encoder."""
    encoder = experiment.encoder

    def told(source: Source) -> Result:
        return {"name": source.name, "fingerprint": source.fingerprint()}

    return {
        "data": {"train": told(experiment.train), "test": told(experiment.test)},
        "checkpoint": {"path": str(encoder.path), "method": encoder.spec.method.name, "step": encoder.meta.step},
    }


def settle(result: Result, notes: Sequence[str], key: str, fail_under: float | None) -> None:
    """Put ``notes`` into ``result``, and what ``--fail-under`` makes of its ``key``."""
    result["notes"] = list(dict.fromkeys(notes))
    if fail_under is not None:
        result["gate"] = {"fail_under": fail_under, "passed": result[key] >= fail_under}


def close(result: Result, lines: Sequence[str], key: str, as_json: bool) -> None:
    """Warn of a settled result's notes and print it; exit with code 7 where its ``key`` missed the gate."""
    for line in result["notes"]:
        output.warn(line)
    output.emit(result, as_json, "\n".join(lines))
    gate = result.get("gate")
    if gate and not gate["passed"]:
        output.warn(f"{WORDS.get(key, key)} {result[key]:.4f} is under --fail-under {gate['fail_under']:g}")
        raise typer.Exit(int(Exit.GATE))


def spreads(said: Mapping[str, Any]) -> list[str]:
    """What several evaluations were averaged over, and how far they lie apart, by the protocol that was ``said``."""
    return [
        f"  mean of {said[count]} {count} of {what}; "
        f"they differ by {100 * said['spread']:.1f} points (one standard deviation)"
        for count, what in (("draws", said.get("labels")), ("seeds", "classifier and held-out part"))
        if (said.get(count) or 1) > 1
    ]


def _settings(scores: Sequence[Score]) -> list[str]:
    """What the scores were made with; the spread where several were averaged; retrieval."""
    first = scores[0]
    said = first.protocol
    lines = [f"  {_words(s)}: {s}" for s in scores] if len(scores) > 1 else [f"  {_words(first)}"]
    if said.get("leave_one_out"):
        lines[-1] += "  each image tested on all others (leave one out)"
    lines += spreads(said)
    if first.retrieval and "map" in first.retrieval:
        low, high = first.retrieval["map_interval"]
        recall = "".join(f", recall@{k} {100 * r:.1f} %" for k, r in first.retrieval["recall"].items())
        lines.append(f"  mAP {100 * first.retrieval['map']:.1f} % ({100 * low:.1f} to {100 * high:.1f}){recall}")
    return lines


def _words(score: Score) -> str:
    return ", ".join(f"{key} {score.protocol[key]:g}" for key in SHOWN if key in score.protocol)


def _details(score: Score, classes: list[str], result: Result, given: Frozen) -> list[str]:
    """``--per-class`` and ``--confusion``: into ``result``, and as lines for people."""
    from ..evaluate.detail import confused, confusion, mean_per_class, per_class

    lines = []
    if given.per_class:
        rows = result["per_class"] = per_class(score, classes)
        result["mean_per_class"] = mean_per_class(rows)
        lines.append(f"  mean of the classes: top-1 {100 * result['mean_per_class']:.1f} %")
        for row in sorted((r for r in rows if r["images"]), key=lambda r: float(r["top1"])):
            low, high = row["interval"]
            share = f"{100 * row['top1']:5.1f} % ({100 * low:.1f} to {100 * high:.1f})"
            lines.append(f"    {share}  {row['class']}, {row['images']} images")
    if given.confusion:
        counts = confusion(score)
        result["confusion"] = {"classes": classes, "counts": counts.tolist()}
        if len(classes) <= MATRIX:
            lines += _matrix(classes, counts.tolist())
        else:
            lines.append("  most frequent mistakes")
            lines += [f"    {n:5d}  {classes[a]} taken for {classes[b]}" for a, b, n in confused(counts, MISTAKES)]
    return lines


def _matrix(classes: Sequence[str], counts: list[list[int]]) -> list[str]:
    """Rows: the class; columns, by number: what it was taken for."""
    name = max(map(len, classes))
    width = max(len(str(max(map(max, counts)))), len(str(len(classes)))) + 1
    head = "".join(str(i).rjust(width) for i in range(1, len(classes) + 1))
    lines = [f"  class (row) taken for (column)\n    {'':{name + 4}}{head}"]
    for i, (own, row) in enumerate(zip(classes, counts, strict=True), 1):
        lines.append(f"    {i:3d} {own:{name}}" + "".join(str(n or ".").rjust(width) for n in row))
    return lines
