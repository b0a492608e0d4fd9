"""The report of one or several runs: an HTML file, from the files of the runs, that opens without a network."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from ...data.source import Source
from ...errors import SslctlError
from ...files import write_atomically
from ...runs.checkpoint import find
from ...runs.directory import differences
from ...runs.encoder import LoadedEncoder, load_encoder
from ...version import __version__
from ..comparison import read_run
from ..html import render_html
from ..maps.over_time import FILE, MapHistory, fixed_images, mean_maps, read_maps, shrink
from . import exhibits
from .chart import Chart, make_chart
from .exhibits import Exhibits
from .expectations import Reading, read_curve, sort_keys
from .history import History, Record, read_history, short_names

SECONDS = 15.0  # for reading and encoding images for neighbours
TEMPLATE = Path(__file__).with_name("report.html")
VERDICTS = {"learning": "good", "weak": "watch", "stuck": "watch", "collapsed": "bad"}


@dataclass(frozen=True)
class RunView:
    """A run on the page, apart from its curves."""

    history: History
    name: str
    place: int
    state: str
    verdict: str  # good, watch, bad, or empty
    word: str
    facts: list[tuple[str, str]]
    pictures: Exhibits
    readings: dict[str, Reading]  # by key


@dataclass(frozen=True)
class Panel:
    """A chart and the readings below it, one for each run that has the curve: (place, name, reading)."""

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
    """Write the report of the runs in ``paths`` to ``out``; return which parts are missing in it, and why.

    ``source`` is the (single) run's images if they are open already. Neighbours take at most ``seconds`` a run.
    Raises CheckpointError if a run has no metrics, MachineError if the disk refuses.
    """
    histories = [read_history(path) for path in paths]
    device = device or torch.device("cpu")
    views = [
        _view(history, name, place, _gather(history, source, device, seconds))
        for place, (history, name) in enumerate(zip(histories, short_names(paths), strict=True))
    ]
    write_atomically(out, render(views).encode())
    return [f"{view.name}: {part}: {why}" for view in views for part, why in view.pictures.missing.items()]


def render(views: Sequence[RunView]) -> str:
    """Render the page. Text from files is escaped; the page allows its own script, by hash, and no address."""
    return render_html(
        TEMPLATE,
        runs=views,
        panels=_panels(views),
        different=_different([view.history for view in views]),
        spec=[
            yaml.safe_dump(v.history.spec_yaml, sort_keys=False, allow_unicode=True) if v.history.spec_yaml else ""
            for v in views
        ],
        style=TEMPLATE.with_suffix(".css").read_text("utf-8"),
        version=__version__,
        time=time.strftime("%Y-%m-%d %H:%M"),
        gallery=exhibits.GALLERY,
    )


def _panels(views: Sequence[RunView]) -> list[Panel]:
    panels = []
    for key in sort_keys({key for view in views for key in view.history.curves}):
        selection = [view for view in views if key in view.history.curves]
        readings = [(view.place, view.name, view.readings[key]) for view in selection]
        first = readings[0][2]
        curves = [(view.name, view.place, view.history.curves[key]) for view in selection]
        marks = [mark for mark in first.marks if all(mark in reading.marks for _, _, reading in readings)]
        panels.append(Panel(key, first.title, make_chart(curves, marks, first.unit), readings))
    return panels


def _view(history: History, name: str, place: int, pictures: Exhibits) -> RunView:
    word = str(history.latest("health", "")).split(" · ")[0].split(" (")[0]
    verdict = VERDICTS.get(word, "")
    state = _state(history)
    if history.end.get("state") in ("diverged", "collapsed", "failed"):
        word, verdict = str(history.end["state"]), "bad"
    readings = {key: read_curve(key, history) for key in sort_keys(set(history.curves))}
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
    """Collect the pictures of a run; a part that fails is listed as missing and stops nothing."""
    exhibit = Exhibits()
    spec = history.spec

    def attempt(part: str, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except SslctlError as e:
            exhibit.missing[part] = e.message
        except Exception as e:  # files and networks of any kind: none of them may stop a report
            exhibit.missing[part] = f"{type(e).__name__}: {e}"
        return None

    if spec is None:
        return exhibit
    images = source if source is not None else attempt("images", lambda: exhibits.open_images(spec))
    if images is not None:
        exhibit.views = attempt("views", lambda: exhibits.sample_views(spec, images)) or []
    encoder = attempt("encoder", lambda: load_encoder(history.path))
    maps = read_maps(history.path / FILE)
    if maps is None and images is not None and encoder is not None:
        maps = attempt("maps", lambda: _maps_of_checkpoints(history.path, images))
    if maps is not None:
        exhibit.maps = attempt("maps", lambda: exhibits.paint_history(maps)) or []
    if images is not None and encoder is not None:
        neighbours = attempt("neighbours", lambda: exhibits.find_neighbours(encoder, images, device, seconds))
        if neighbours is not None:
            exhibit.neighbours, exhibit.searched = neighbours.neighbours, neighbours.searched
            exhibit.agreement = neighbours.agreement
            exhibit.missing |= neighbours.missing
    return exhibit


def _maps_of_checkpoints(path: Path, source: Source) -> MapHistory:
    """Compute maps of the fixed images from the checkpoints of a run that recorded none."""
    maps = {}
    for file in sorted({find(path), *(path / "checkpoints").glob("step-*.safetensors")}):
        encoder: LoadedEncoder = load_encoder(file)
        transform = encoder.transform()
        images, names = fixed_images(source, transform)
        maps[int(encoder.meta.step)] = mean_maps(encoder.backbone, transform.normalise(images))
    return MapHistory(shrink(images), names, dict(sorted(maps.items())))


def _different(histories: Sequence[History]) -> list[tuple[str, list[str]]]:
    """Return the keys at which the specs differ, with the value in each."""
    if len(histories) < 2 or not all(history.spec_yaml for history in histories):
        return []
    keys = dict.fromkeys(
        key
        for other in histories[1:]
        for key, _, _ in differences(histories[0].spec_yaml, other.spec_yaml, other.spec_yaml | histories[0].spec_yaml)
    )
    return [(key, [_value(history.spec_yaml, key) for history in histories]) for key in keys]


def _value(spec: Record, key: str) -> str:
    value: Any = spec
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return "–" if value is None else str(value)
