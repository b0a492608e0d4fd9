"""Every method with its small recipe on the demo set: kNN top-1 over seeds, as a Markdown table on stdout.

    python benchmarks/demo_methods.py [--methods byol swav] [--seeds 0 1 2] [--views 2x20@0.4-1] [--out FOLDER]
        [-- options of pretrain]

Runs that are finished in --out are not repeated, so it goes on where it was interrupted. On two cores a method and seed
takes some minutes.
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
from sslctl.methods import METHODS, load_method


def sslctl(*words: object) -> dict[str, Any]:
    """What a command prints as JSON. It runs in this process: to start one takes as long as some of the training."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = app([*map(str, words), "--json", "--quiet"], standalone_mode=False)
    if code:
        raise SystemExit(f"sslctl {' '.join(map(str, words))} ended with code {code}")
    found: dict[str, Any] = json.loads(printed.getvalue())
    return found


def measure(method: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Pretrain one method with one seed and score it; the score is kept beside the run."""
    run = given.out / f"{method}-{seed}"
    kept = run / "demo_methods.json"
    if not kept.is_file():
        words = ["--method", method, "--recipe", "small", "--data", "demo", "--seed", seed, "--out", run]
        if given.views and load_method(method).views.crops.startswith("2x"):
            words += ["--multi-crop", given.views]
        trained = sslctl("pretrain", *words, *given.options)
        kept.write_text(json.dumps({"trained": trained, "knn": sslctl("knn", run, "--baselines")}))
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def table(results: dict[str, list[dict[str, Any]]], seeds: list[int]) -> str:
    """A row for every method: mean kNN top-1, each seed's, how healthy the last run was; then what is to be beaten."""

    def row(name: str, scores: list[float], last: str) -> str:
        cells = [f"{100 * score:.1f}" for score in (statistics.mean(scores), *scores)]
        return f"| {name} | {' | '.join(cells)} | {last} |"

    head = ["method", "kNN top-1, %", *(f"seed {seed}" for seed in seeds), "at the end"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for method, runs in results.items():
        health = runs[-1]["trained"]["health"]
        lines.append(row(METHODS[method].title, [run["knn"]["top1"] for run in runs], health))
    first = next(iter(results.values()))
    for key, name in (("pixels", "raw pixels"), ("random", "random weights")):
        lines.append(row(name, [run["knn"]["baselines"][key]["top1"] for run in first], ""))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/demo-methods"))
    parser.add_argument("--views", metavar="CROPS", help="--multi-crop of the methods that compare views")
    parser.add_argument("options", nargs="*", help="further options of pretrain, after --")
    given = parser.parse_args()
    for seed in given.seeds:  # a seed at a time, so that what is there when it is interrupted is a table
        for method in given.methods:
            measure(method, seed, given)
    results = {method: [measure(method, seed, given) for seed in given.seeds] for method in given.methods}
    sys.stdout.write(table(results, given.seeds) + "\n")


if __name__ == "__main__":
    main()
