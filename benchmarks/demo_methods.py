"""Every method with its small recipe on the demo set: kNN top-1 over seeds, as a Markdown table on stdout.

    python benchmarks/demo_methods.py [--methods byol swav] [--seeds 0 1 2] [--whole] [--out FOLDER]
        [-- options of pretrain]

Views have half the side of the images, a quarter of the cost, so that a method and seed takes about a minute of one
core; with --whole they are the recipe's own. Runs that are finished in --out are not repeated, so it goes on where it
was interrupted, and several at once may share a folder where their seeds or methods differ.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from sslctl.cli.main import app
from sslctl.methods import METHODS

HALF = "--multi-crop 2x16"
ALONE = {
    "mae": "",
    "rotnet": "--multi-crop 1x16 --epochs 10",
    "jigsaw": "",
    "cpc": "--multi-crop 1x24 --epochs 10",
    "supervised": "--multi-crop 1x16",
}
"""Options of methods that compare no views: RotNet sees each in four rotations; MAE, Jigsaw and CPC cut them."""


def sslctl(*words: object) -> dict[str, Any]:
    """Return what a command prints as JSON. It runs in this process: starting one takes as long as some training."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = app([*map(str, words), "--json", "--quiet"], standalone_mode=False)
    if code:
        raise SystemExit(f"sslctl {' '.join(map(str, words))} ended with code {code}")
    found: dict[str, Any] = json.loads(printed.getvalue())
    return found


def measure(method: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Pretrain one method with one seed and score it, with baselines for the first seed; kept beside the run."""
    run = given.out / f"{method}-{seed}"
    kept = run / "demo_methods.json"
    if not kept.is_file():
        words = ["--method", method, "--recipe", "small", "--data", "demo", "--seed", seed, "--out", run]
        half = [] if given.whole else ALONE.get(method, HALF).split()
        trained = sslctl("pretrain", *words, *half, *given.options)
        beside = ["--baselines"] if seed == given.seeds[0] else []
        kept.write_text(json.dumps({"trained": trained, "knn": sslctl("knn", run, *beside)}))
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def table(results: dict[str, list[dict[str, Any]]], seeds: list[int]) -> str:
    """A row for every method: mean kNN top-1, each seed's, its random weights', health; then what is to be beaten."""
    head = ["method", "kNN top-1, %", *(f"seed {seed}" for seed in seeds), "random weights", "at the end"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for method, runs in results.items():
        scores = [run["knn"]["top1"] for run in runs]
        random = runs[0]["knn"]["baselines"]["random"]["top1"]
        cells = [f"{100 * score:.1f}" for score in (statistics.mean(scores), *scores, random)]
        lines.append(f"| {METHODS[method].title} | {' | '.join(cells)} | {runs[-1]['trained']['health']} |")
    pixels = next(iter(results.values()))[0]["knn"]["baselines"]["pixels"]["top1"]
    return "\n".join([*lines, f"| raw pixels | {100 * pixels:.1f} |{' |' * (len(head) - 2)}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--whole", action="store_true", help="views as large as the recipe has them")
    parser.add_argument("--out", type=Path, default=Path("runs/demo-methods"))
    parser.add_argument("options", nargs="*", help="further options of pretrain, after --")
    given = parser.parse_args()
    for seed in given.seeds:  # a seed at a time, so that what is there when it is interrupted is a table
        for method in given.methods:
            measure(method, seed, given)
    results = {method: [measure(method, seed, given) for seed in given.seeds] for method in given.methods}
    sys.stdout.write(table(results, given.seeds) + "\n")


if __name__ == "__main__":
    main()
