"""The ablations under examples/: what the papers say happens, on the demo set, in seconds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_without_its_stop_gradient_simsiam_collapses(tmp_path: Path) -> None:
    script = ROOT / "examples" / "ablations" / "simsiam_stop_gradient.py"
    options = "--steps 60 --batch-size 64 --lr 0.4 --multi-crop 2x16 --set backbone.args.channels=[8,8,16,16]".split()
    done = subprocess.run(
        [sys.executable, str(script), "--out", str(tmp_path), "--", *options],
        env=os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r"(.*): loss (\S+), std of the output (\S+)/sqrt\(D\), rank (\S+)", done.stdout)
    (kept, *with_stop), (without, *gone) = found
    assert (kept, without) == ("with stop-gradient", "without")
    (loss, std, rank), (low, narrow, one) = ([float(x) for x in numbers] for numbers in (with_stop, gone))
    assert std > 0.75 and narrow < 0.6 and low < loss - 0.2 and one < 0.6 * rank
    picture = Path(done.stdout.splitlines()[-1])
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 5000
