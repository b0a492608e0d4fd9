"""``sslctl methods``: every method once and without torch, one of them whole; recipes from the command line."""

from __future__ import annotations

import json
import subprocess
import sys

from typer.testing import CliRunner, Result

from sslctl.cli.main import app
from sslctl.methods import METHODS
from sslctl.methods.recipes import published


def call(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def test_the_list_has_every_method_and_every_recipe() -> None:
    done = call("methods")
    assert done.exit_code == 0
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    for name, entry in METHODS.items():
        assert entry.paper in lines[name] and entry.kind in lines[name]
        assert all(recipe.name in lines[name] for recipe in published(name))
    assert "75.3" in lines["swav"] and "65.7" in lines["swav"]


def test_the_list_as_json_and_without_torch() -> None:
    code = (
        "import sys; sys.argv = ['sslctl', 'methods', '--json']\n"
        "from sslctl.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    rows = json.loads(done.stdout)["methods"]
    assert [row["name"] for row in rows] == list(METHODS)
    dino = next(row for row in rows if row["name"] == "dino")
    assert (dino["year"], dino["linear"], dino["recipes"][0]) == (2021, 77.0, "small")


def test_one_method_whole() -> None:
    for name in METHODS:
        found = json.loads(call("methods", name, "--json").stdout)
        assert found["parameters"] and all(p["description"] or "temperature" in p["name"] for p in found["parameters"])
        assert found["recipes"][0]["name"] == "small" and found["views"]["multi_crop"] and found["description"]
    text = call("methods", "Barlow_Twins").stdout
    assert text.startswith("Barlow Twins · without negatives · Zbontar et al. 2021")
    assert "0.0051" in text and "--recipe barlow-twins-r50-1000ep · linear 73.5 % · knn 66.0 %" in text
    assert "0.996 to 1, cosine" in call("methods", "byol").stdout


def test_an_unknown_method_is_answered_with_the_nearest() -> None:
    done = call("methods", "simsima")
    assert done.exit_code == 2 and "did you mean 'simsiam'" in done.stderr


def test_a_dry_run_derives_and_warns() -> None:
    words = ["pretrain", "--data", "demo", "--recipe", "small", "--method", "moco-v2", "--lr", "0.004", "--dry-run"]
    done = call(*words)
    assert done.exit_code == 0, done.stderr
    assert "# learning rate 0.002 = 0.004 x 128/256" in done.stdout
    assert "# the teacher averages over about 50 of 620 steps" in done.stdout
    assert "warning" not in done.stderr
    short = call(*words, "--steps", "60", "--json")
    assert "stays near its random start" in short.stderr
    assert "stays near its random start" in " ".join(json.loads(short.stdout)["warnings"])
