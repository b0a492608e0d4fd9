"""The report of one run, or of several side by side: one HTML file that opens offline, from the files of the runs."""

from __future__ import annotations

import base64
import functools
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from ...data.source import Source
from ...errors import SslctlError
from ...files import write_atomically
from ...runs.checkpoint import find
from ...runs.directory import differences
from ...runs.encoder import LoadedEncoder, load_encoder
from ...version import __version__
from ..comparison import read_run
from ..maps.over_time import FILE, Glimpse, fixed_images, look, shown
from ..maps.over_time import read as read_glimpses
from . import exhibits
from .chart import Chart, draw
from .exhibits import Exhibits
from .expectations import Reading, ordered, read
from .history import Data, History, read_history

SECONDS = 15.0  # in which images for neighbours are read and encoded, at most
HERE = Path(__file__).parent
VERDICTS = {"learning": "good", "weak": "watch", "stuck": "watch", "collapsed": "bad"}


@dataclass(frozen=True)
class RunView:
    """What the page says of one run beside its curves."""

    history: History
    name: str
    place: int
    state: str
    verdict: str  # good, watch, bad, or empty
    word: str
    facts: list[tuple[str, str]]
    shown: Exhibits
    readings: dict[str, Reading]  # by key


@dataclass(frozen=True)
class Panel:
    """A chart and what is said below it, a reading for each run that has the curve: (place, name, reading)."""

    key: str
    title: str
    chart: Chart
    readings: list[tuple[int, str, Reading]]


def write_report(
    paths: Sequence[Path],
    out: Path,
    *,
    source: Source | None = None,
    device: torch.device | None = None,
    seconds: float = SECONDS,
) -> list[str]:
    """Write the report of the runs in ``paths`` to ``out``; sentences on what is missing in it, and why.

    ``source`` is the (single) run's images where they are open already. Neighbours take ``seconds`` a run, at most.
    Raises CheckpointError where a run has no metrics, MachineError where the disk refuses.
    """
    histories = [read_history(path) for path in paths]
    device = device or torch.device("cpu")
    views = [
        _view(history, name, place, _gather(history, source, device, seconds))
        for place, (history, name) in enumerate(zip(histories, _names(histories), strict=True))
    ]
    write_atomically(out, render(views).encode())
    return [f"{view.name}: {what}: {why}" for view in views for what, why in view.shown.missing.items()]


def render(views: Sequence[RunView]) -> str:
    """The page. Whatever comes from files is escaped; the one script is allowed by its hash, and no address at all."""
    script, style = ((HERE / f"report.{kind}").read_text("utf-8") for kind in ("js", "css"))
    return _template().render(
        runs=views,
        panels=_panels(views),
        different=_different([view.history for view in views]),
        spec=[
            yaml.safe_dump(v.history.spec_yaml, sort_keys=False, allow_unicode=True) if v.history.spec_yaml else ""
            for v in views
        ],
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=style,
        version=__version__,
        made=time.strftime("%Y-%m-%d %H:%M"),
        gallery=exhibits.GALLERY,
    )


@functools.cache
def _template() -> Template:
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html")


def _panels(views: Sequence[RunView]) -> list[Panel]:
    found = []
    for key in ordered({key for view in views for key in view.history.curves}):
        mine = [view for view in views if key in view.history.curves]
        readings = [(view.place, view.name, view.readings[key]) for view in mine]
        first = readings[0][2]
        curves = [(view.name, view.place, view.history.curves[key]) for view in mine]
        marks = [mark for mark in first.marks if all(mark in reading.marks for _, _, reading in readings)]
        found.append(Panel(key, first.title, draw(curves, marks, first.unit), readings))
    return found


def _view(history: History, name: str, place: int, pictures: Exhibits) -> RunView:
    word = str(history.latest("health", "")).split(" · ")[0].split(" (")[0]
    verdict = VERDICTS.get(word, "")
    state = _state(history)
    if history.end.get("state") in ("diverged", "collapsed", "failed"):
        word, verdict = str(history.end["state"]), "bad"
    readings = {key: read(key, history) for key in ordered(set(history.curves))}
    return RunView(history, name, place, state, verdict, word, _facts(history), pictures, readings)


def _state(history: History) -> str:
    done, total = history.lines[-1]["step"], history.start.get("total")
    steps = f"{done} of {total} steps" if total else f"{done} steps"
    end = history.end
    if not end:
        return f"{steps}; no end is recorded: it is running, or it was killed" if history.start else steps
    message = f": {end['message']}" if end.get("message") else ""
    return f"{end.get('state')} after {steps}{message}"


def _facts(history: History) -> list[tuple[str, str]]:
    spec, facts = history.spec, []
    if spec is not None:
        facts += [("method", spec.method.name), ("encoder", spec.backbone.arch), ("images", spec.data.path)]
        facts += [("views", spec.views.multi_crop or "the method's"), ("batch", str(spec.run.batch_size))]
    else:
        row = read_run(history.path).row
        facts += [
            (key, str(row[key])) for key in ("task", "method", "arch", "data", "labels") if row.get(key) is not None
        ]
    if images := history.start.get("images"):
        facts.append(("trained on", f"{images} images"))
    for key, title in (("probe_knn", "best kNN probe"), ("probe_linear", "best linear probe"), ("top1", "best top-1")):
        if curve := history.curves.get(key):
            facts.append((title, f"{100 * max(p.value for p in curve):.1f} %"))
    if history.unreadable:
        facts.append(("unreadable images", str(history.unreadable)))
    return facts


def _gather(history: History, source: Source | None, device: torch.device, seconds: float) -> Exhibits:
    """Every picture of a run that its files and its images allow; what fails is said, and stops nothing."""
    found = Exhibits()
    spec = history.spec

    def attempt(part: str, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except SslctlError as e:
            found.missing[part] = e.message
        except Exception as e:  # pictures come from files and nets of any kind, and a report fails over none of them
            found.missing[part] = f"{type(e).__name__}: {e}"
        return None

    if spec is None:
        return found
    images = source if source is not None else attempt("images", lambda: exhibits.open_images(spec))
    if images is not None:
        found.views = attempt("views", lambda: exhibits.sample_views(spec, images)) or []
    encoder = attempt("encoder", lambda: load_encoder(history.path))
    glimpse = read_glimpses(history.path / FILE)
    if glimpse is None and images is not None and encoder is not None:
        glimpse = attempt("maps", lambda: _look_back(history.path, images))
    if glimpse is not None:
        found.glimpses = attempt("maps", lambda: exhibits.paint_glimpses(glimpse)) or []
    if images is not None and encoder is not None:
        near = attempt("neighbours", lambda: exhibits.find_neighbours(encoder, images, device, seconds))
        if near is not None:
            found.neighbours, found.looked_at, found.agreement = near.neighbours, near.looked_at, near.agreement
            found.missing |= near.missing
    return found


def _look_back(path: Path, source: Source) -> Glimpse:
    """Maps of the fixed images from the checkpoints that are there, of a run that kept none as it went."""
    maps = {}
    for file in sorted({find(path), *(path / "checkpoints").glob("step-*.safetensors")}):
        encoder: LoadedEncoder = load_encoder(file)
        transform = exhibits.transform_of(encoder)
        images, names = fixed_images(source, transform)
        maps[int(encoder.meta.step)] = look(encoder.backbone, transform.normalise(images))
    return Glimpse(shown(images), names, dict(sorted(maps.items())))


def _names(histories: Sequence[History]) -> list[str]:
    """Short names, the whole path where two would be alike."""
    short = [history.name for history in histories]
    return [str(h.path) if short.count(h.name) > 1 else h.name for h in histories]


def _different(histories: Sequence[History]) -> list[tuple[str, list[str]]]:
    """Keys of the specs that are not the same in all runs, with the value in each."""
    if len(histories) < 2 or not all(history.spec_yaml for history in histories):
        return []
    keys = dict.fromkeys(
        key
        for other in histories[1:]
        for key, _, _ in differences(histories[0].spec_yaml, other.spec_yaml, other.spec_yaml | histories[0].spec_yaml)
    )
    return [(key, [_value(history.spec_yaml, key) for history in histories]) for key in keys]


def _value(told: Data, dotted: str) -> str:
    value: Any = told
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return "–" if value is None else str(value)
