"""SimSiam with and without its stop-gradient: how far the normalised output spreads, step by step, as a picture.

    python examples/ablations/simsiam_stop_gradient.py [--out FOLDER] [-- options of sslctl pretrain]

The paper's figure 2 (arXiv 2011.10566): with the stop-gradient the standard deviation of the output's numbers stays
near 1/sqrt(D); without it, at the smallest possible loss, all images get one output. All but one: the batch norm on the
output demands a variance, and an outlier is the cheapest way to have it, which leaves a deviation of 2/sqrt(B D) for a
batch of B and an effective rank of 1. On stdout the last values, deviations times sqrt(D), and where the picture is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt

CASES = {"with stop-gradient": "true", "without": "false"}


def train(stop: str, run: Path, options: list[str]) -> list[dict[str, float]]:
    """The metric lines of a run on the demo set, with every step's."""
    spec = ["--data", "demo", "--method", "simsiam", "--recipe", "small"]
    quick = ["--set=run.log_every=1", "--set=run.epochs=4", "--set=optim.name=sgd"]
    quick += ["--set=optim.warmup_epochs=0", "--set=optim.lr=0.2", "--set=optim.weight_decay=5e-4"]
    switches = [*quick, f"--set=method.stop_gradient={stop}"]
    command = [sys.executable, "-m", "sslctl", "pretrain", "--quiet", *spec, *switches, "--out", str(run), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/simsiam-stop-gradient"))
    parser.add_argument("options", nargs="*", help="further options of pretrain, after --")
    given = parser.parse_args()
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
    curves = {"loss": "loss", "output_std": "std of the normalised output · √D", "rank": "effective rank"}
    for name, stop in CASES.items():
        lines = train(stop, given.out / f"stop-{stop}", given.options)
        for axis, key in zip(axes, curves, strict=True):
            axis.plot([line["step"] for line in lines], [line[key] for line in lines], label=name)
        last = lines[-1]
        numbers = (
            f"loss {last['loss']:.3f}, std of the output {last['output_std']:.3f}/sqrt(D), rank {last['rank']:.1f}"
        )
        sys.stdout.write(f"{name}: {numbers}\n")
    for axis, label in zip(axes, curves.values(), strict=True):
        axis.set(xlabel="step", ylabel=label)
    axes[1].set_ylim(0, 1.1)
    axes[0].legend()
    picture = given.out / "simsiam_stop_gradient.png"
    figure.savefig(picture, dpi=120)
    sys.stdout.write(f"{picture}\n")


if __name__ == "__main__":
    main()
