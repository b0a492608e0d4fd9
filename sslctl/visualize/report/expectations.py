"""Readings of curves: what is normal for the method, and how the run compares."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

from ...engine.health import COLLAPSED_STD, UNIFORM
from ...errors import SslctlError
from ...methods import METHODS, load_method
from ...methods.advice import chance
from ...methods.base import Method
from .chart import format_value
from .history import Curve, History

Marks = tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Reading:
    """A reading of a curve; ``verdict`` is good, watch, bad, or empty if no threshold is known."""

    title: str
    normal: str
    now: str = ""
    verdict: str = ""
    marks: Marks = ()
    unit: str = ""


def read_curve(key: str, run: History) -> Reading:
    """Return the reading of the curve ``key`` of ``run``."""
    curve = run.curves[key]
    reader, method = READERS.get(key), _method(run)
    normal = method.curves.get(key) if method is not None else None
    if reader is None:
        return Reading(key.replace("_", " "), normal or "a metric of the method", _status(curve))
    reading = reader(run, curve)
    return replace(reading, normal=normal) if normal else reading


def sort_keys(keys: set[str]) -> list[str]:
    """Return ``keys`` in the order of a report: known ones first."""
    return [key for key in READERS if key in keys] + sorted(keys - READERS.keys())


def trend(curve: Curve) -> str:
    """Return level, falling or rising: the last fifth against the fifth before, level within 2 % of the range."""
    values = [p.value for p in curve]
    fifth = len(values) // 5
    if fifth < 1:
        return ""
    change = fmean(values[-fifth:]) - fmean(values[-2 * fifth : -fifth])
    spread = max(values) - min(values)
    return "level" if abs(change) <= 0.02 * spread else "falling" if change < 0 else "rising"


def _status(curve: Curve, unit: str = "", detail: str = "") -> str:
    parts = [f"now {format_value(curve[-1].value, unit)}", detail, trend(curve)]
    return ", ".join(part for part in parts if part)


def _loss(run: History, curve: Curve) -> Reading:
    try:
        if run.spec is None:
            raise SslctlError("no spec")
        baseline = chance(run.spec, int(run.start.get("images") or 0))
    except SslctlError:  # no valid spec, or parameters of another version
        return Reading("loss", "falls, faster at first", _status(curve))
    last, level = curve[-1].value, baseline.level
    if level is None:
        return Reading("loss", baseline.normal, _status(curve))
    difference, mark = last - level, f"{baseline.formula} = {format_value(level)}"
    share = f"{abs(difference) / abs(level):.0%}" if level else f"{abs(difference):.2f}"
    where = f"{share} {'below' if difference < 0 else 'above'} chance ({mark})"
    return Reading("loss", baseline.normal, _status(curve, "", where), "", ((level, mark),))


def _lr(run: History, curve: Curve) -> Reading:
    peak, last = max(p.value for p in curve), curve[-1].value
    normal = "follows the schedule of the spec"
    if run.spec is not None:
        o = run.spec.optim
        epochs = f"{o.warmup_epochs:g} epoch{'s' * (o.warmup_epochs != 1)}"
        normal = f"rises over {epochs}, then {o.schedule} towards {o.lr_end:g}"
    return Reading("learning rate", normal, f"now {format_value(last)}, {last / peak:.0%} of its peak" if peak else "")


def _speed(run: History, curve: Curve) -> Reading:
    typical, last = median(p.value for p in curve), curve[-1].value
    normal = "level; dips are probes, checkpoints, or other processes on the machine"
    now = f"now {format_value(last)} images/s, typically {format_value(typical)}"
    return Reading("images a second", normal, now, "watch" if last < 0.6 * typical else "good")


def _wait(run: History, curve: Curve) -> Reading:
    typical = median(p.value for p in curve)
    verdict = "good" if typical < 0.1 else "watch" if typical < 0.3 else "bad"
    cure = "" if verdict == "good" else ": the loader is the bottleneck; try more --workers or smaller images"
    normal = "under 10 %: the share of time spent waiting for images"
    return Reading("waiting for data", normal, f"typically {format_value(typical, '%')}{cure}", verdict, unit="%")


def _std(run: History, curve: Curve) -> Reading:
    last, features = curve[-1].value, (method := _method(run)) is not None and method.health_on_features
    normal = (
        "of the backbone's features, which share a mean: usually 0.3 to 0.9, collapsed under 0.1"
        if features
        else "1 is uniform over the sphere, usually 0.6 to 1 after the warm-up, collapsed under 0.1"
    )
    verdict = "bad" if last < COLLAPSED_STD else "watch" if last < 0.3 else "good"
    marks = ((1.0, "1: uniform"), (COLLAPSED_STD, "collapsed below"))
    return Reading("spread of embeddings (std · √D)", normal, _status(curve), verdict, marks)


def _rank(run: History, curve: Curve) -> Reading:
    last, full = curve[-1].value, _full_rank(run)
    normal = (
        "falls from its random start, then rises or settles; clustering and small datasets settle low. 1 is collapsed"
    )
    if not full:
        return Reading("effective rank", normal, _status(curve))
    verdict = "bad" if last < 1.5 and full > 4 else "watch" if last < 0.1 * full else "good"
    now = f"now {last:.0f} of at most {full}" + (f", {way}" if (way := trend(curve)) else "")
    return Reading("effective rank", normal, now, verdict, ((float(full), f"at most {full}"), (1.0, "collapsed")))


def _entropy(run: History, curve: Curve) -> Reading:
    last = curve[-1].value
    normal = (
        "of Sinkhorn's targets, as a share of ln K: rises at first as embeddings cluster, then falls. At 1 targets are "
        "uniform and carry no information"
    )
    verdict = "bad" if last > UNIFORM else "good"
    return Reading("entropy of targets / ln K", normal, _status(curve), verdict, ((1.0, "uniform"),))


def _information(run: History, curve: Curve) -> Reading:
    last = curve[-1].value
    normal = "in nats: rises; 0 if all images have the same target, sharp or uniform (collapse onto one prototype)"
    verdict = "bad" if last < 0.05 else "watch" if last < 0.5 else "good"
    return Reading(
        "information of targets about images", normal, _status(curve), verdict, ((0.0, "same target for all"),)
    )


def _usage(run: History, curve: Curve) -> Reading:
    last = curve[-1].value
    normal = "share of prototypes that are nearest to some view of a batch; at most views / K, steady once learning"
    return Reading("prototypes in use", normal, _status(curve, "%"), "watch" if last < 0.05 else "good", unit="%")


def _age(run: History, curve: Curve) -> Reading:
    last, momentum = curve[-1].value, _momentum(run)
    normal = "steps since the oldest key was computed: rises while the queue fills, then level at queue / batch"
    now, verdict = _status(curve), ""
    if momentum is not None and momentum < 1:
        share = momentum**last
        now = f"now {last:.0f} steps, over which the teacher keeps {share:.0%} of itself"
        verdict = "good" if share > 0.2 else "watch"
        normal += ". A fast teacher makes old keys inconsistent: it should keep most of itself over that time"
    return Reading("age of the queue's oldest key", normal, now, verdict)


def _filled(run: History, curve: Curve) -> Reading:
    is_full = curve[-1].value > 0.99
    if run.spec is not None and run.spec.method_params().get("queue") == 0:
        return Reading("queue filled", "this run has no queue", unit="%")
    start = run.spec.method_params().get("queue_from_epoch") if run.spec else None
    normal = (
        "empty until " + (f"epoch {start}" if start is not None else "it is used") + ", then it fills and stays full"
    )
    return Reading(
        "queue filled", normal, f"now {format_value(curve[-1].value, '%')}", "good" if is_full else "", unit="%"
    )


def _accuracy(run: History, curve: Curve) -> Reading:
    normal = "of the method's own task on the views of a batch: rises; 100 % early on means a shortcut"
    return Reading("accuracy on its own task", normal, _status(curve, "%"), unit="%")


def _probe(title: str) -> Callable[[History, Curve], Reading]:
    def reader(run: History, curve: Curve) -> Reading:
        best = max(curve, key=lambda p: p.value)
        now = f"now {format_value(curve[-1].value, '%')}, best {format_value(best.value, '%')} at step {best.step}"
        worse = curve[-1].value < best.value - 0.05
        normal = "on labelled images that it never trains on: rises, fast at first; a lasting fall means overfitting"
        return Reading(title, normal, now, "watch" if worse else "good", unit="%")

    return reader


def _simple(title: str, normal: str, unit: str = "") -> Callable[[History, Curve], Reading]:
    return lambda run, curve: Reading(title, normal, _status(curve, unit), unit=unit)


def _method(run: History) -> type[Method[Any]] | None:
    if run.spec is None or run.spec.method.name not in METHODS:
        return None
    return load_method(run.spec.method.name)


def _momentum(run: History) -> float | None:
    schedule = run.spec.method_params().get("momentum") if run.spec is not None else None
    return float(schedule["base"]) if isinstance(schedule, dict) and "base" in schedule else None


def _full_rank(run: History) -> int:
    if (rank := run.latest("rank_of")) is not None:
        return int(rank)
    match = re.search(r"rank \d+/(\d+)", str(run.latest("health", "")))  # of runs without rank_of
    return int(match[1]) if match else 0


READERS: dict[str, Callable[[History, Curve], Reading]] = {
    "loss": _loss,
    "probe_knn": _probe("probe: kNN top-1"),
    "probe_linear": _probe("probe: linear top-1"),
    "top1": _simple("top-1 on the test images", "rises; a fall while the loss falls is overfitting", "%"),
    "std": _std,
    "rank": _rank,
    "target_entropy": _entropy,
    "target_information": _information,
    "prototype_usage": _usage,
    "queue_age": _age,
    "queue_filled": _filled,
    "known": _simple("images with a cluster", "0 in the first epoch, then nearly all", "%"),
    "accuracy": _accuracy,
    "output_std": lambda run, curve: replace(_std(run, curve), title="spread of the projector's output"),
    "invariance": _simple("invariance", "squared difference of two views: falls, never to 0"),
    "variance": _simple("variance hinge", "falls towards 0 in the first epochs; staying near 1 is collapse"),
    "covariance": _simple("covariance", "falls as dimensions become decorrelated"),
    "teacher_temperature": _simple(
        "teacher's temperature", "follows its schedule: rises in the first epochs, then level"
    ),
    "lr": _lr,
    "images_per_second": _speed,
    "data_wait": _wait,
    "augment": _simple("augmentation", "level: the share of time spent making views of the images", "%"),
    "memory_gib": _simple(
        "memory, GiB", "the maximum so far: level after the first steps; a steady rise ends in running out of memory"
    ),
}
