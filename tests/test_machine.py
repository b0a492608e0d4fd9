"""What is taken from the machine: memory that stays."""

from __future__ import annotations

import resource
import subprocess
import sys

import torch

from sslctl.machine import keep_freed_memory, peak_memory

MIB = 1 << 20


def test_memory_that_a_tensor_leaves_serves_the_next_one():
    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(64 * MIB // 4)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    keep_freed_memory()
    pages = 64 * MIB // resource.getpagesize()
    assert min(faults() for _ in range(4)) < pages // 2, "else every page of it is asked for anew"


def test_peak_memory_is_in_bytes_and_stays():
    before = peak_memory(torch.device("cpu"))
    held = torch.ones(before // 4 + 64 * MIB // 4)  # as much again, and written to
    after = peak_memory(torch.device("cpu"))
    assert after >= held.nbytes
    words = "import torch; from sslctl.machine import peak_memory; print(peak_memory(torch.device('cpu')))"
    started = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout
    assert 50 * MIB < int(started) < held.nbytes, "of the new process, not of this one that started it"
    del held
    assert peak_memory(torch.device("cpu")) >= after
