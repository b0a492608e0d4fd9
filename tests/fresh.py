"""Fresh processes that cost no imports: one process has the libraries loaded, without sslctl, and forks for each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

# The libraries that checks load; transformers brings its classes when they are asked for.
_SERVER = """
import json, os, sys, traceback
import numpy, onnxruntime, PIL.Image, timm, torch, torchvision, safetensors.torch, safetensors.numpy
from transformers import AutoConfig, AutoImageProcessor, AutoModel
from transformers import BitImageProcessor, Dinov2Model, ResNetModel, ViTModel
assert "sslctl" not in sys.modules
for line in sys.stdin:
    order = json.loads(line)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writer, 2)
        code = 0
        try:
            os.chdir(order["cwd"])
            sys.argv = order["argv"]
            exec(compile(order["code"], "<code>", "exec"), {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stderr.flush()
        os._exit(code)
    os.close(writer)
    with open(reader, errors="replace") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    print(json.dumps([os.waitstatus_to_exitcode(status), said]), flush=True)
"""


@pytest.fixture(scope="module")
def warm() -> Iterator[Any]:
    """``warm(command, cwd=…)`` stands for subprocess.run of ``[python, "-c", code, …]``."""
    server = subprocess.Popen([sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None and server.stdout is not None

    def run(command: list[str], *, cwd: object, **_: object) -> subprocess.CompletedProcess[str]:
        assert command[:2] == [sys.executable, "-c"] and server.stdin and server.stdout
        order = {"code": command[2], "argv": ["-c", *command[3:]], "cwd": str(cwd)}
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        code, said = json.loads(server.stdout.readline())
        return subprocess.CompletedProcess(command, code, "", said)

    yield run
    server.stdin.close()
    server.wait(timeout=20)
