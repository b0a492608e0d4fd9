"""What is taken from the machine: memory that stays, pages that an accelerator can fetch by itself."""

from __future__ import annotations

import resource

import pytest
import torch

from sslctl.build import load_by, open_surroundings
from sslctl.machine import keep_freed_memory, peak_memory
from sslctl.resolve import resolve
from sslctl.views.augment import Augment

from .training import picture_folder, small_spec

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
    del held
    assert peak_memory(torch.device("cpu")) >= after


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True)])
def test_batches_for_cuda_are_pinned_so_that_copies_need_not_wait(tmp_path, device, pinned):
    around = open_surroundings(resolve(small_spec(picture_folder(tmp_path))))
    loader = load_by(around, Augment(around.plan, 0), 3, torch.device(device))(start_step=0)
    assert loader.pin_memory is pinned
