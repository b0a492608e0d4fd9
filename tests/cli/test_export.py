"""export from the command line: on a run alone, what is printed, what is refused and when."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from sslctl.exchange.exports.formats import FORMATS
from tests.cli.calling import COLOURS, call, result, tiny_vit, write_images


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    run = tiny_vit(write_images(folder / "flags", list(COLOURS), 8), folder / "run")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines[-1] |= {"probe_knn": 0.625, "probe_linear": 0.75}
    lines.append(lines[-1] | {"step": 99, "probe_knn": 0.999})  # of later weights
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_a_run_is_exported_with_its_card_and_checked_in_a_process_of_its_own(vit: Path, tmp_path: Path) -> None:
    score = result("knn", vit, "--k", "3")
    (tmp_path / "knn.json").write_text(json.dumps(score))
    words = ("export", vit, "--out", tmp_path / "encoder", "--license", "apache-2.0")
    found = result(*words, "--scores", tmp_path / "knn.json")
    assert found["format"] == "timm" and "local-dir:encoder" in found["load"] and found["notes"]
    assert found["parity"]["relative"] <= found["parity"]["tolerance"] == 1e-5 and found["parity"]["strangers"] == 0
    assert found["images"] == "16 images of flags at 32x32 px"  # the run's own
    names = ["README.md", "config.json", "model.safetensors", "parity.json"]
    assert sorted(p.name for p in (tmp_path / "encoder").iterdir()) == names
    report = json.loads(Path(found["report"]).read_text())
    assert report["parity"]["absolute"] == found["parity"]["absolute"] and len(report["files"]) == 3
    card = (tmp_path / "encoder" / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert (front["license"], front["library_name"]) == ("apache-2.0", "timm")
    metrics = [told["metrics"][0] for told in front["model-index"][0]["results"]]
    assert [metric["value"] for metric in metrics] == [0.625, 0.75, round(score["top1"], 4)]
    assert metrics[2]["name"].startswith("knn: k 3, temperature 0.07") and "test images of 3 classes" in card
    assert "20 nearest neighbours, temperature 0.07 | flags | 62.5 % |" in card and "method:\n  name: dino" in card
    assert str(vit.parent) not in card  # where it lay is nobody's business
    done = call("export", vit, "--out", tmp_path / "encoder")
    assert done.exit_code == 2 and "--force" in done.stderr
    score["checkpoint"]["step"] = 1
    (tmp_path / "knn.json").write_text(json.dumps(score))
    for file, message in [("knn.json", "a score of dino at step 1, not of dino at 2"), ("none.json", "not a score")]:
        done = call(*words[:3], tmp_path / "other", "--scores", tmp_path / file)
        assert done.exit_code == 2 and message in done.stderr and not (tmp_path / "other").exists()


def test_what_cannot_be_is_said_before_anything_is_read(
    vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(name in call("export", "--help").stdout for name in FORMATS)
    done = call("export", "nowhere", "--out", tmp_path / "e", "--format", "tim")
    assert done.exit_code == 2 and "did you mean 'timm'" in done.stderr and done.stdout == ""
    monkeypatch.setattr("sslctl.exchange.exports.formats.find_spec", lambda name: None)
    done = call("export", "nowhere", "--out", tmp_path / "e", "--format", "hf")
    assert done.exit_code == 5 and "pip install 'sslctl[transformers]'" in done.stderr
    done = call("export", vit, "--out", tmp_path / "e.onnx", "--format", "pt2", "--json")
    assert done.exit_code == 2 and json.loads(done.stdout)["error"]["hint"] == "--out e.pt2"
    assert list(tmp_path.iterdir()) == []
