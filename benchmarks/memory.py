"""Peak memory of a DINO step with 65 536 outputs, beside lightly's parts for it; each in a process of its own.

    OMP_NUM_THREADS=1 python benchmarks/memory.py [--batch 32] [--crops 2x96+4x48] [--precision fp32]

The figure is the process's largest resident size after two steps, less that of the bare encoder's process.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

from step import DINO, VIT, lightlys, training

from sslctl.profiling.estimate import noise_views
from sslctl.profiling.limit import EncoderOnly, training_step

CONTENDERS = ("bare", "ours", "lightly")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--crops", default="2x96+4x48")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only is None:
        peaks = {}
        for name in CONTENDERS:
            command = [sys.executable, *sys.argv, "--only", name]
            peaks[name] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        more = {name: (peak - peaks["bare"]) / 1024 for name, peak in peaks.items()}
        sys.stdout.write(
            f"{peaks['ours'] / 1024:.0f} MiB, lightly {peaks['lightly'] / 1024:.0f}: "
            f"{peaks['ours'] / peaks['lightly']:.2f}; above the bare encoder ({peaks['bare'] / 1024:.0f}) "
            f"{more['ours']:.0f} and {more['lightly']:.0f}: {more['ours'] / more['lightly']:.2f}\n"
        )
        return
    least = ("method.prototypes=2", "method.hidden=1", "method.bottleneck=1") if given.only == "bare" else ()
    t = training("dino", VIT, given.crops, given.batch, (*DINO, *least), given.precision)
    views = noise_views(t, given.batch)
    if given.only == "bare":
        run = EncoderOnly(t, views, grouped=True).step
    else:
        run = training_step(t, views) if given.only == "ours" else lightlys(t, views)
    del t
    run()
    run()
    sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}\n")


if __name__ == "__main__":
    main()
