"""What is taken from the machine: memory that stays. In a process of its own, whose heap no other test has shaped."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch

MIB = 1 << 20

ALONE = """
import json, resource, torch
from sslctl.runtime.device import keep_freed_memory, peak_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64 * 2**20 // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

cpu = torch.device("cpu")
peaks = [peak_memory(cpu)]
anew = faults()
keep_freed_memory()
kept = [faults() for _ in range(24)][-4:]  # the heap settles first: what is small takes its place in it
held = torch.ones(256 * 2**20 // 4)
peaks.append(peak_memory(cpu))
del held
peaks.append(peak_memory(cpu))
print(json.dumps({"anew": anew, "kept": kept, "pages": 64 * 2**20 // resource.getpagesize(), "peaks": peaks}))
"""


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """What a process found that was started by one with a much higher peak of memory."""
    held = torch.ones(1024 * MIB // 4)
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True)
    del held
    return json.loads(done.stdout)


def test_memory_that_a_tensor_leaves_serves_the_next_one(alone):
    assert alone["anew"] > alone["pages"] // 2, "or pages say nothing here"
    assert max(alone["kept"]) < alone["pages"] // 2, "else every page of it is asked for anew"


def test_peak_memory_is_in_bytes_and_stays_and_is_the_own_one(alone):
    begun, full, later = alone["peaks"]
    assert 50 * MIB < begun < 1024 * MIB, "of the new process, not of the one that started it"
    assert full >= begun + 200 * MIB
    assert later >= full
