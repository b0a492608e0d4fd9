"""The examples of docs/python.md and of the README run as they stand; the face of the package is what __all__ says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sslctl

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["docs/python.md", "README.md"])
def test_the_examples_run(page: str, tmp_path: Path) -> None:
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.M | re.S))
    assert "sslctl.pretrain" in code
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    if page == "docs/python.md":
        assert "did you mean 'simsiam'" in done.stdout and "torch.Size([3, 8])" in done.stdout
        assert "6/6: " in done.stdout and "features of 1000 test images" in done.stdout


def test_every_public_name_is_there_documented_and_nothing_heavy_comes_with_the_package() -> None:
    heavy = "sorted(set(sys.modules) & {'torch', 'numpy', 'timm', 'pydantic', 'typer'})"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, sslctl; print({heavy})"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
    page = (ROOT / "docs" / "python.md").read_text("utf-8")
    for name in sslctl.__all__:
        assert getattr(sslctl, name).__doc__ and (name in page or name == "SslctlError"), name
    assert set(sslctl.__all__) <= set(dir(sslctl))
    with pytest.raises(AttributeError, match="no attribute 'kn'"):
        _ = sslctl.kn  # type: ignore[attr-defined]
