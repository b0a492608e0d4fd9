"""Errors carry a message, a hint and an exit code; what ran out of memory is told from other faults."""

from __future__ import annotations

import pytest
import torch

from sslctl.errors import (
    CheckpointError,
    DataError,
    Exit,
    MachineError,
    SpecError,
    SslctlError,
    closest,
    ran_out_of_memory,
)


@pytest.mark.parametrize(
    ("kind", "code"), [(SpecError, 2), (DataError, 3), (CheckpointError, 4), (MachineError, 5), (SslctlError, 2)]
)
def test_each_kind_has_its_exit_code(kind: type[SslctlError], code: int) -> None:
    error = kind("what is wrong", "what to type")
    assert (error.message, error.hint, error.exit_code) == ("what is wrong", "what to type", code)
    assert str(error) == error.message
    assert kind("x", exit_code=Exit.GATE).exit_code == 7 and kind("x").exit_code == code


def test_codes_are_those_that_scripts_rely_on() -> None:
    assert {code.name: int(code) for code in Exit} == {
        "DONE": 0, "BUG": 1, "USAGE": 2, "DATA": 3, "CHECKPOINT": 4, "ENVIRONMENT": 5, "DIVERGED": 6, "GATE": 7,
        "STOPPED": 75, "INTERRUPTED": 130,
    }  # fmt: skip


def test_the_nearest_word_is_suggested_where_one_is_near() -> None:
    assert "'swav'" in closest("swva", ["swav", "dino"])
    assert closest("entirely else", ["swav", "dino"]) == ""


def test_real_allocations_that_fail_are_told_from_other_faults() -> None:
    with pytest.raises(RuntimeError) as full:
        torch.empty(1 << 50)
    with pytest.raises(RuntimeError) as shapes:
        torch.ones(2) @ torch.ones(3)
    assert ran_out_of_memory(full.value) and ran_out_of_memory(MemoryError())
    assert not ran_out_of_memory(shapes.value) and not ran_out_of_memory(ValueError("memory"))
