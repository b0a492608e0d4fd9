"""The example that compares fine-tuning with training from scratch runs from beginning to end, in a small form."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from ..training import picture_folder, small_spec

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_scratch_or_not_ends_in_a_table_and_a_picture(tmp_path: Path) -> None:
    pictures = picture_folder(tmp_path / "pictures", n=60)
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(small_spec(pictures)))
    shim = tmp_path / "bin" / "sslctl"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m sslctl "$@"\n')
    shim.chmod(0o755)
    words = [tmp_path / "spec.yaml", pictures, tmp_path / "out", 2]
    done = subprocess.run(
        [str(ROOT / "examples" / "scratch-or-not.sh"), *map(str, words)],
        env={**os.environ, "PATH": f"{shim.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("knn: top-1") and "\nlinear-eval: top-1" in done.stdout
    rows = [line.split()[0] for line in done.stdout.splitlines() if " finetune " in line]
    assert rows == [f"{kind}-{labels}" for kind in ("tuned", "scratch") for labels in ("0.01", "0.1", "1")]
    with Image.open(tmp_path / "out" / "compare.png") as picture:
        assert picture.width > 1000  # accuracy and loss
