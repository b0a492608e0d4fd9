"""One line for each curve: what is normal for this method, and where the run stands."""

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
from .chart import show
from .history import Curve, History

Marks = tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Reading:
    """What to say of a curve. ``verdict`` is good, watch, bad, or empty where no number says."""

    title: str
    normal: str
    now: str = ""
    verdict: str = ""
    marks: Marks = ()
    unit: str = ""


def read(key: str, run: History) -> Reading:
    """The reading of the curve ``key`` of ``run``."""
    curve = run.curves[key]
    reader, method = READERS.get(key), _method(run)
    normal = method.curves.get(key) if method is not None else None
    if reader is None:
        return Reading(key.replace("_", " "), normal or "a figure of the method's own", _now(curve))
    reading = reader(run, curve)
    return replace(reading, normal=normal) if normal else reading


def ordered(keys: set[str]) -> list[str]:
    """``keys`` as a report shows them: the known ones first."""
    return [key for key in READERS if key in keys] + sorted(keys - READERS.keys())


def trend(curve: Curve) -> str:
    """Whether the last fifth of the run differs from the fifth before it, by more than 2 % of all there was."""
    values = [p.value for p in curve]
    fifth = len(values) // 5
    if fifth < 1:
        return ""
    change = fmean(values[-fifth:]) - fmean(values[-2 * fifth : -fifth])
    spread = max(values) - min(values)
    return "level" if abs(change) <= 0.02 * spread else "falling" if change < 0 else "rising"


def _now(curve: Curve, unit: str = "", more: str = "") -> str:
    parts = [f"now {show(curve[-1].value, unit)}", more, trend(curve)]
    return ", ".join(part for part in parts if part)


def _loss(run: History, curve: Curve) -> Reading:
    try:
        if run.spec is None:
            raise SslctlError("no spec")
        nothing = chance(run.spec, int(run.start.get("images") or 0))
    except SslctlError:  # no spec that can be read, or parameters of another version
        return Reading("loss", "falls, faster at first", _now(curve))
    last, level = curve[-1].value, nothing.level
    if level is None:
        return Reading("loss", nothing.normal, _now(curve))
    away, mark = last - level, f"{nothing.formula} = {show(level)}"
    share = f"{abs(away) / abs(level):.0%}" if level else f"{abs(away):.2f}"
    where = f"{share} {'below' if away < 0 else 'above'} chance ({mark})"
    return Reading("loss", nothing.normal, _now(curve, "", where), "", ((level, mark),))


def _lr(run: History, curve: Curve) -> Reading:
    peak, last = max(p.value for p in curve), curve[-1].value
    normal = "as the spec's schedule says"
    if run.spec is not None:
        o = run.spec.optim
        epochs = f"{o.warmup_epochs:g} epoch{'s' * (o.warmup_epochs != 1)}"
        normal = f"rises over {epochs}, then {o.schedule} towards {o.lr_end:g}"
    return Reading("learning rate", normal, f"now {show(last)}, {last / peak:.0%} of its peak" if peak else "")


def _speed(run: History, curve: Curve) -> Reading:
    typical, last = median(p.value for p in curve), curve[-1].value
    normal = "level; a dip is a probe, a checkpoint, or another process on the machine"
    now = f"now {show(last)} images/s, typically {show(typical)}"
    return Reading("images a second", normal, now, "watch" if last < 0.6 * typical else "good")


def _wait(run: History, curve: Curve) -> Reading:
    typical = median(p.value for p in curve)
    verdict = "good" if typical < 0.1 else "watch" if typical < 0.3 else "bad"
    cure = "" if verdict == "good" else ": the loader is what is slow; more --workers, or smaller images"
    normal = "under 10 %: the share of time spent waiting for images"
    return Reading("waiting for data", normal, f"typically {show(typical, '%')}{cure}", verdict, unit="%")


def _std(run: History, curve: Curve) -> Reading:
    last, features = curve[-1].value, (method := _method(run)) is not None and method.health_on_features
    normal = (
        "of the backbone's features, which share a mean: 0.3 to 0.9 is usual, under 0.1 collapsed"
        if features
        else "1 is evenly spread over the sphere, 0.6 to 1 usual after the warm-up, under 0.1 collapsed"
    )
    verdict = "bad" if last < COLLAPSED_STD else "watch" if last < 0.3 else "good"
    marks = ((1.0, "1: evenly spread"), (COLLAPSED_STD, "collapsed below"))
    return Reading("spread of embeddings (std · √D)", normal, _now(curve), verdict, marks)


def _rank(run: History, curve: Curve) -> Reading:
    last, full = curve[-1].value, _full_rank(run)
    normal = (
        "falls from its random start, then rises or settles; clusterings and small tasks settle low. 1 is collapsed"
    )
    if not full:
        return Reading("effective rank", normal, _now(curve))
    verdict = "bad" if last < 1.5 and full > 4 else "watch" if last < 0.1 * full else "good"
    now = f"now {last:.0f} of at most {full}" + (f", {way}" if (way := trend(curve)) else "")
    return Reading("effective rank", normal, now, verdict, ((float(full), f"at most {full}"), (1.0, "collapsed")))


def _entropy(run: History, curve: Curve) -> Reading:
    last = curve[-1].value
    normal = (
        "of Sinkhorn's targets, as a share of ln K: rises as embeddings bunch up at first, then falls. At 1 they are "
        "uniform and say nothing"
    )
    verdict = "bad" if last > UNIFORM else "good"
    return Reading("entropy of targets / ln K", normal, _now(curve), verdict, ((1.0, "uniform"),))


def _information(run: History, curve: Curve) -> Reading:
    last = curve[-1].value
    normal = "in nats: rises; 0 where all images get the same target, sharp or uniform (collapse onto one prototype)"
    verdict = "bad" if last < 0.05 else "watch" if last < 0.5 else "good"
    return Reading("what targets tell of images", normal, _now(curve), verdict, ((0.0, "the same for all"),))


def _usage(run: History, curve: Curve) -> Reading:
    last = curve[-1].value
    normal = "share of prototypes that are some view's nearest in a batch; at most views / K, steady once learning"
    return Reading("prototypes in use", normal, _now(curve, "%"), "watch" if last < 0.05 else "good", unit="%")


def _age(run: History, curve: Curve) -> Reading:
    last, momentum = curve[-1].value, _momentum(run)
    normal = "steps since the oldest key was made: rises while the queue fills, then level at queue / batch"
    now, verdict = _now(curve), ""
    if momentum is not None and momentum < 1:
        kept = momentum**last
        now = f"now {last:.0f} steps, over which the teacher keeps {kept:.0%} of itself"
        verdict = "good" if kept > 0.2 else "watch"
        normal += ". Old keys of a fast teacher do not compare: it should keep most of itself meanwhile"
    return Reading("age of the queue's oldest key", normal, now, verdict)


def _filled(run: History, curve: Curve) -> Reading:
    full = curve[-1].value > 0.99
    if run.spec is not None and run.spec.method_params().get("queue") == 0:
        return Reading("queue filled", "this run has no queue", unit="%")
    since = run.spec.method_params().get("queue_from_epoch") if run.spec else None
    normal = (
        "empty until " + (f"epoch {since}" if since is not None else "it is used") + ", then it fills and stays full"
    )
    return Reading("queue filled", normal, f"now {show(curve[-1].value, '%')}", "good" if full else "", unit="%")


def _accuracy(run: History, curve: Curve) -> Reading:
    normal = "of the method's own task on the views of a batch: rises; at 100 % early, there is a shortcut"
    return Reading("accuracy on its own task", normal, _now(curve, "%"), unit="%")


def _probe(title: str) -> Callable[[History, Curve], Reading]:
    def reader(run: History, curve: Curve) -> Reading:
        best = max(curve, key=lambda p: p.value)
        now = f"now {show(curve[-1].value, '%')}, best {show(best.value, '%')} at step {best.step}"
        fell = curve[-1].value < best.value - 0.05
        normal = (
            "on labelled images it never trains on: rises, fast at first; a lasting fall means overfitting its task"
        )
        return Reading(title, normal, now, "watch" if fell else "good", unit="%")

    return reader


def _simple(title: str, normal: str, unit: str = "") -> Callable[[History, Curve], Reading]:
    return lambda run, curve: Reading(title, normal, _now(curve, unit), unit=unit)


def _method(run: History) -> type[Method[Any]] | None:
    known = run.spec is not None and run.spec.method.name in METHODS
    return load_method(run.spec.method.name) if known and run.spec is not None else None


def _momentum(run: History) -> float | None:
    schedule = run.spec.method_params().get("momentum") if run.spec is not None else None
    return float(schedule["base"]) if isinstance(schedule, dict) and "base" in schedule else None


def _full_rank(run: History) -> int:
    if (told := run.latest("rank_of")) is not None:
        return int(told)
    found = re.search(r"rank \d+/(\d+)", str(run.latest("health", "")))  # before it was a figure of its own
    return int(found[1]) if found else 0


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
    "covariance": _simple("covariance", "falls while numbers are made to differ"),
    "teacher_temperature": _simple(
        "teacher's temperature", "as its schedule says: rises in the first epochs, then level"
    ),
    "lr": _lr,
    "images_per_second": _speed,
    "data_wait": _wait,
    "augment": _simple("augmentation", "level: the share of time spent making views of the images", "%"),
    "memory_gib": _simple(
        "memory, GiB", "the most so far: level after the first steps; what rises on will not end well"
    ),
}
