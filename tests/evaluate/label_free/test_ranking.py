"""sslctl rank: which checkpoints are meant, what is measured on what, the order, and its agreement with scores."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sslctl.cli.main import app
from sslctl.data import open_source
from sslctl.data.in_memory import in_memory
from sslctl.engine.loop import train
from sslctl.errors import CheckpointError
from sslctl.evaluate.features.extract import extract
from sslctl.evaluate.label_free.measures import alignment, lidar, rankme
from sslctl.evaluate.label_free.ranking import MEASURES, Ranked, agreement, find_checkpoints, measure
from sslctl.evaluate.label_free.view_features import extract_views, view_plan
from sslctl.runs import checkpoint
from sslctl.runs.directory import Run
from sslctl.runs.encoder import load_encoder
from sslctl.tasks.rank import MEASURES as BY
from sslctl.views.augment import Augment

from ...training import StopAfter, picture_folder, silent, small_spec, training


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = picture_folder(tmp_path_factory.mktemp("pictures"), n=24, labels=3)
    (folder / "class0" / "021.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of steps 2, 4 and 6, the last of them under two names, with probes at 2, 4 and 6."""
    path = tmp_path_factory.mktemp("runs") / "simclr"
    probed = {"probe_data": str(pictures), "probe_every": 2, "keep": 9}
    with Run(path) as opened:
        train(training(small_spec(pictures, run=probed)), opened, StopAfter(99), silent)
    return path


def result(*words: object) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["rank", *map(str, words), "--workers", "0", "--json"])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_which_checkpoints_are_meant(run: Path, tmp_path: Path) -> None:
    inside = run / "checkpoints"
    assert find_checkpoints([run]) == ([checkpoint.find(run)], [])
    steps, _ = find_checkpoints([inside])
    assert [path.name for path in steps] == [f"step-00000000{n}.safetensors" for n in (2, 4, 6)]
    (tmp_path / "empty").mkdir()
    named, skipped = find_checkpoints([Path("timm:resnet18"), tmp_path / "empty", steps[0], steps[0]])
    assert named == [Path("timm:resnet18"), steps[0]] and len(skipped) == 1 and "empty" in skipped[0]
    with pytest.raises(CheckpointError, match="empty"):
        find_checkpoints([tmp_path / "empty"])


def test_the_views_are_those_of_training_whatever_the_batches(run: Path, pictures: Path) -> None:
    encoder = load_encoder(run)
    source = open_source(str(pictures))
    plan = view_plan(encoder)
    assert [view.size for view in plan.globals] == [32, 32] and not plan.locals
    found = extract_views(encoder.backbone, source, plan, 5, seed=3, batch_size=4)
    assert found.shape == (23, 5, encoder.backbone.dim)
    torch.testing.assert_close(found, extract_views(encoder.backbone, source, plan, 5, seed=3, batch_size=64))
    whole = training(small_spec(pictures, run={"seed": 3}))
    augment = Augment(plan, 3)
    assert whole.augment.plan.globals == plan.globals
    crops = augment.geometric(source.read(6), 1, 6)  # the fourth view is the second one of epoch 1
    from sslctl.data.loader import Batch

    batch = Batch(torch.tensor([6]), torch.tensor([1]), [c[None] for c in crops])
    with torch.no_grad():
        h = encoder.backbone(augment(batch, torch.device("cpu")).globals[1]).pooled
    torch.testing.assert_close(found[6, 3], h[0], rtol=1e-4, atol=1e-5)


def test_views_of_a_set_in_memory(run: Path, tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / f"{i}.png")
    encoder, files = load_encoder(run), open_source(str(tmp_path))
    held = in_memory(files, True)
    plan = view_plan(encoder)
    a, b = (extract_views(encoder.backbone, source, plan, 2) for source in (files, held))
    assert (
        torch.nn.functional.cosine_similarity(a, b, dim=2).min() > 0.999
    )  # cropped by another routine, as in training


def test_every_checkpoint_is_measured_on_the_run_s_own_images(run: Path, pictures: Path) -> None:
    found = result(run / "checkpoints", "--views", 4, "--by", "lidar")
    assert [r["step"] for r in sorted(found["encoders"], key=lambda r: -r["measures"]["lidar"])] == [
        r["step"] for r in found["encoders"]
    ]
    assert {r["images"] for r in found["encoders"]} == {23} and {r["width"] for r in found["encoders"]} == {16}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    probed = {line["step"]: line["probe_knn"] for line in lines if "probe_knn" in line}
    assert {r["step"]: r["scores"]["probe_knn"] for r in found["encoders"]} == probed
    assert found["agreement"]["probe_knn"]["rankme"]["n"] == 3
    last = next(r for r in found["encoders"] if r["step"] == 6)
    encoder, source = load_encoder(run), open_source(str(pictures))
    image = encoder.meta.image
    x = extract(encoder.backbone, source, image.transform()).x
    views = extract_views(encoder.backbone, source, view_plan(encoder), 4)
    assert last["measures"]["rankme"] == pytest.approx(rankme(x))
    assert last["measures"]["lidar"] == pytest.approx(lidar(views))
    assert last["measures"]["alignment"] == pytest.approx(alignment(views))
    assert list(last["measures"]) == list(MEASURES) == list(BY)


def test_on_other_images_with_labels_of_their_own(run: Path, pictures: Path, tmp_path: Path) -> None:
    found = result(
        run, "random:resnet10t", "--data", pictures / "class1", "--labelled", pictures, "--views", 0, "--images", 8
    )
    assert {r["images"] for r in found["encoders"]} == {8} and len(found["data"]) == 1
    assert {r["method"] for r in found["encoders"]} == {"simclr", "unknown"}
    assert all(0 <= r["scores"]["knn"] <= 1 and "lidar" not in r["measures"] for r in found["encoders"])
    assert found["agreement"] == {} and "bound the ranks" in found["notes"][0]
    text = CliRunner().invoke(app, ["rank", str(run), "--views", "0", "--workers", "0"])
    assert text.exit_code == 0 and "in the order of RankMe" in text.stdout and "agreement is unknown" in text.stdout
    assert "computed before" not in text.stdout


def test_words_that_cannot_be_meant(run: Path, tmp_path: Path) -> None:
    for words, code, message in [
        ((run, "--by", "rankmee"), 2, "did you mean 'rankme'"),
        ((run, "--views", "0", "--by", "lidar"), 2, "--views 0"),
        ((run, "--views", "1"), 2, "--views 1"),
        ((tmp_path,), 4, "holds no checkpoint"),
        (("random:resnet10t",), 2, "give --data"),
    ]:
        done = CliRunner().invoke(app, ["rank", *map(str, words)])
        assert done.exit_code == code and message in done.stderr, done.stderr


def ranked(name: str, measures: dict[str, float], **scores: float) -> Ranked:
    return Ranked(name, Path(name), "m", 1, 9, 4, measures, scores)


def test_agreement_counts_what_is_better_as_higher() -> None:
    four = [
        ranked("a", {"rankme": 1.0, "uniformity": -1.0, "alpha": 2.0}, knn=0.1),
        ranked("b", {"rankme": 2.0, "uniformity": -2.0, "alpha": 0.6}, knn=0.2),
        ranked("c", {"rankme": 4.0, "uniformity": -3.0, "alpha": math.nan}, knn=0.3),
        ranked("d", {"rankme": 3.0, "uniformity": -4.0, "alpha": 1.1}, knn=0.4, linear=0.5),
    ]
    found = agreement(four)
    assert found.keys() == {"knn"}
    assert found["knn"]["uniformity"] == (pytest.approx(1), pytest.approx(1), 4)
    assert found["knn"]["rankme"] == (pytest.approx(0.8), pytest.approx(2 / 3), 4)
    assert found["knn"]["alpha"] == (pytest.approx(1), pytest.approx(1), 3)  # nearer to 1 is better; c has none
    assert agreement(four[:2]) == {}


def test_measures_of_a_collapsed_encoder_are_finite_or_none() -> None:
    found = measure(torch.ones(20, 6), torch.ones(20, 3, 6))
    assert found["rankme"] == pytest.approx(1, abs=1e-4) and found["lidar"] == 1 and found["nesum"] == 0
    assert (
        found["alignment"] == pytest.approx(0)
        and found["uniformity"] == pytest.approx(0)
        and math.isnan(found["alpha"])
    )
    assert ranked("x", found).goodness("alpha") == -math.inf
