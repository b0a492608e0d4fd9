"""The report of real runs: its numbers are those of the files, text from outside stays text, and a browser agrees."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner, Result

from sslctl.cli.main import app
from sslctl.engine.loop import train
from sslctl.runs import checkpoint
from sslctl.runs.directory import Run
from sslctl.runtime.stop import StopRequest
from sslctl.visualize.maps.over_time import FILE, SHARES, read_maps
from sslctl.visualize.report.page import write_report

from ...browser import Browser
from ...training import picture_folder, silent, small_spec, training

EVIL = ["<img src=x onerror=alert(1)>", '"><script>document.title=1']  # names of class folders


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec, and two runs by it: swav on the classes of ``EVIL``, and dino."""
    root = tmp_path_factory.mktemp("runs")
    pictures = picture_folder(root / "pictures")
    for i, name in enumerate(EVIL):
        (pictures / f"class{i}").rename(pictures / name)
    for method in ("swav", "dino"):
        spec = root / f"{method}.yaml"
        spec.write_text(yaml.safe_dump(small_spec(pictures, method, run={"probe_data": str(pictures)})))
        done = call("pretrain", "--spec", spec, "--out", root / method)
        assert done.exit_code == 0, done.stderr
        assert "warning: report" not in done.stderr and "warning: glimpses" not in done.stderr
    return root


class Page(HTMLParser):
    """What a page consists of: every tag with its attributes, and the points of its curves."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = path.read_text("utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def curves(self, key: str) -> list[list[list[Any]]]:
        """Points (x, y, step, value) of each curve in the panel ``key``."""
        start = next(i for i, (_, a) in enumerate(self.tags) if a.get("id") == key)
        panel = self.tags[start + 1 :]
        ends = [i for i, (tag, _) in enumerate(panel) if tag == "section"]
        inside = panel[: ends[0]] if ends else panel
        return [json.loads(a["data-points"] or "") for _, a in inside if "data-points" in a]


def test_the_curves_are_those_of_the_metrics(folder: Path) -> None:
    page = Page(folder / "swav" / "report.html")
    lines = [json.loads(line) for line in (folder / "swav" / "metrics.jsonl").read_text().splitlines()]
    for key in ("loss", "std", "rank", "lr", "images_per_second", "target_entropy", "prototype_usage", "queue_filled"):
        (points,) = page.curves(key)
        assert [step for _, _, step, _ in points] == [line["step"] for line in lines if key in line]
        if key in ("loss", "std"):
            assert [float(value) for *_, value in points] == [float(f"{line[key]:.4g}") for line in lines]
            heights = [y for _, y, _, _ in points]
            values = [line[key] for line in lines]
            assert sorted(range(6), key=lambda i: values[i]) == sorted(range(6), key=lambda i: -heights[i])
    assert page.curves("probe_knn") and page.curves("data_wait")
    assert "ln K = 2.485" in page.text  # of 12 prototypes: what the loss is measured by
    assert "finished after 6 of 6 steps" in page.text


def test_text_from_outside_stays_text_and_the_page_asks_for_nothing(folder: Path) -> None:
    page = Page(folder / "swav" / "report.html")
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert any(name.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;") in page.text for name in EVIL)
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert tag not in ("iframe", "object", "embed", "form", "base")
        for name in ("src", "href"):
            assert re.match(r"data:|#", attributes.get(name) or "#")
    assert sum(tag == "img" for tag, _ in page.tags) > 6 * 8


def test_a_browser_draws_it_without_an_error_and_without_the_network(folder: Path, tmp_path: Path) -> None:
    both = tmp_path / "compare.html"
    write_report([folder / "swav", folder / "dino"], both)
    with Browser() as browser:
        for page, curves in ((folder / "swav" / "report.html", 1), (both, 2)):
            browser.open(page)
            messages = [
                browser.said(m) for m in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
            ]
            assert messages == [[], [], []]
            addresses = [e["request"]["url"] for e in browser.said("Network.requestWillBeSent")]
            assert [a for a in addresses if not a.startswith("data:")] == [page.resolve().as_uri()]
            assert browser.run("document.title").endswith("sslctl")
            drawn = "[...document.querySelectorAll('#loss path.curve')].map(p => p.getTotalLength())"
            assert len(browser.run(drawn)) == curves and min(browser.run(drawn)) > 100
            panels = "[...document.querySelectorAll('svg.chart')].map(s => s.getBoundingClientRect().height)"
            assert len(browser.run(panels)) >= 12 and min(browser.run(panels)) > 80
            pictures = "[...document.images].every(i => i.complete && i.naturalWidth > 0)"
            assert browser.run(pictures) is True
        point = (
            "(() => { const s = document.querySelector('#loss svg'), b = s.getBoundingClientRect(); s.dispatchEvent("
            "new PointerEvent('pointermove', {clientX: b.right - 20, clientY: b.top + 50}));"
            "return s.querySelector('.tip').textContent; })()"
        )
        assert browser.run(point).count("·") == 1  # the values of both runs
        browser.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
        assert browser.run("document.documentElement.scrollWidth") <= 360
        ground = "getComputedStyle(document.body).backgroundColor"
        colours = []
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.call("Emulation.setEmulatedMedia", features=features)
            colours.append(sum(map(int, re.findall(r"\d+", browser.run(ground))[:3])))
        assert colours[0] > 600 > 150 > colours[1]


def test_maps_of_the_same_images_are_kept_as_training_goes_on(folder: Path) -> None:
    glimpse = read_maps(folder / "swav" / FILE)
    assert glimpse is not None
    assert sorted(glimpse.maps) == sorted({round(share * 6) for share in SHARES})
    first, last = glimpse.maps[0], glimpse.maps[6]
    assert len(first) == len(glimpse.images) == 6 and not torch.equal(first, last)
    assert Page(folder / "swav" / "report.html").text.count("step 6</figcaption>") == 6


def test_the_run_is_the_same_to_the_bit_as_without_all_that_goes_along(folder: Path, tmp_path: Path) -> None:
    t = training(yaml.safe_load((folder / "swav.yaml").read_text()))
    with Run(tmp_path / "bare") as run:
        train(t, run, StopRequest(), silent)
    runs = (tmp_path / "bare", folder / "swav")
    assert len({checkpoint.read_meta(checkpoint.find(path)).sha256 for path in runs}) == 1
    assert not (tmp_path / "bare" / FILE).exists()


def test_what_fails_in_a_report_fails_no_training(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no paper")

    monkeypatch.setattr("sslctl.visualize.report.page.render", broken)
    monkeypatch.setattr("sslctl.visualize.maps.over_time.mean_maps", broken)
    done = call("pretrain", "--spec", folder / "dino.yaml", "--out", tmp_path / "run")
    assert done.exit_code == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning")]
    assert [line for line in warnings if line.startswith("warning: report: RuntimeError: no paper")]
    assert len([line for line in warnings if "no paper" in line]) == 2  # the other is of the glimpses, once
    assert not (tmp_path / "run" / "report.html").exists()


def test_the_command_says_what_it_cannot_show(folder: Path, tmp_path: Path) -> None:
    """The images are gone, the kept maps damaged, a metric line cut off: the rest is drawn all the same."""
    run = shutil.copytree(folder / "dino", tmp_path / "run")
    spec = yaml.safe_load((run / "spec.yaml").read_text())
    spec["data"]["path"] = str(tmp_path / "<b>gone")
    (run / "spec.yaml").write_text(yaml.safe_dump(spec))
    (run / FILE).write_bytes(b"nonsense")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "epoch": 3.5, "loss": NaN, "odd": 1e400, "health": "<b>odd"}\n{"step": 8')
    done = call("report", run, "--out", tmp_path / "a.html", "--json", "--device", "cpu")
    assert done.exit_code == 0, done.stderr
    body = json.loads(done.stdout)
    assert body["report"] == str(tmp_path / "a.html") and ["gone" in line for line in body["missing"]] == [True]
    page = Page(tmp_path / "a.html")
    assert "&lt;b&gt;odd" in page.text and "<b>" not in page.text and len(page.curves("loss")[0]) == 6
    assert call("report", folder / "pictures").exit_code == 4


def test_maps_come_from_the_checkpoints_where_none_were_kept(folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "dino", tmp_path / "run")
    (run / FILE).unlink()
    (run / "sessions.jsonl").unlink()
    assert write_report([run], run / "report.html") == []
    text = (run / "report.html").read_text()
    assert [text.count(f"step {at}</figcaption>") for at in (2, 4, 6)] == [0, 6, 6]
