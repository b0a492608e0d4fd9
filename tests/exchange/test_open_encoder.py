"""Whatever a command may be given as an encoder is opened, or refused with the reason."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sslctl
from sslctl.errors import CheckpointError, SslctlError
from sslctl.exchange.open_encoder import open_encoder

CLI = Path(sslctl.__file__).parent / "cli"


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        ("timm:resnet188", "no model of timm — did you mean 'resnet18'?", 2),
        ("timm:resnet18.tv_in2k", "resnet18 has no weights 'tv_in2k'", 2),
        ("timm:vit_small_patch16_224.mine", "has no weights 'mine'", 2),
        ("timm:resnet10t_not", "no model of timm", 2),
        ("random:swin_tiny_patch4_window7_224", "cannot be used", 2),
        ("runs/nothing", "runs/nothing: no such file or directory", 4),
        ("timm:", "no such file or directory", 4),
    ],
)
def test_what_cannot_be_opened_is_named(words: str, said: str, code: int) -> None:
    with pytest.raises(SslctlError) as e:
        open_encoder(words)
    assert said in e.value.message and e.value.exit_code == code
    assert isinstance(e.value, CheckpointError) == (code == 4)


def test_every_command_opens_its_encoder_here() -> None:
    wrong = []
    for path in CLI.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            if "load_encoder" in names or ("open_encoder" in names and path.name != "opening.py"):
                wrong.append(path.name)
    assert not wrong
