"""Schedules against those of the authors' codes, and their validation.

The golden inputs are values that the official functions returned (facebookresearch dino, swav, moco, moco-v3, simsiam,
barlowtwins and vicreg).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
import torch
from pydantic import BaseModel, ValidationError
from safetensors.torch import load_file
from torch import Tensor

from sslctl.schedule import Schedule, Step, constant, cosine, within

GOLDEN = Path(__file__).parent / "golden"


def values(schedule: Schedule, epochs: int, per_epoch: int) -> Tensor:
    total = epochs * per_epoch
    return torch.tensor([schedule.at(Step(i, total, per_epoch)) for i in range(total)], dtype=torch.float64)


def warm(base: float, end: float = 0.0, warmup: float = 0.0, reaches: bool = True, first: float = 0.0) -> Schedule:
    return Schedule(base=base, end=end, warmup_epochs=warmup, warmup_from=first, warmup_reaches=reaches)


BY_ITERATION = {
    # file, tensor: schedule, epochs, steps to an epoch
    ("dino_schedules", "lr"): (warm(1e-3, 1e-6, 2), 6, 7),
    ("dino_schedules", "wd"): (cosine(0.04, 0.4), 6, 7),
    ("dino_schedules", "momentum"): (cosine(0.996, 1.0), 6, 7),
    ("dino_schedules", "lr_start_warmup"): (warm(1.0, 0.1, 1, first=0.2), 4, 3),
    ("swav_lr_schedule", "800ep_like"): (warm(4.8, 0.0048, 2, first=0.3), 6, 5),
    ("swav_lr_schedule", "bs256"): (warm(0.6, 0.0006), 4, 5),
    ("schedules_misc", "mocov3_lr"): (warm(2.4, 0.0, 4, reaches=False), 12, 5),
    ("schedules_misc", "mocov3_m"): (cosine(0.99, 1.0), 12, 5),
    ("barlowtwins_vicreg_lr", "barlow_weights"): (warm(1.6, 0.0016, 10, reaches=False), 14, 3),
    ("barlowtwins_vicreg_lr", "barlow_biases"): (warm(0.0384, 0.0000384, 10, reaches=False), 14, 3),
    ("barlowtwins_vicreg_lr", "vicreg"): (warm(1.6, 0.0016, 10, reaches=False), 14, 3),
    ("byol", "lr"): (warm(3.2, 0.0, 1, reaches=False), 4, 5),  # whose warm-up is float32
}


@pytest.mark.parametrize("case", BY_ITERATION, ids="-".join)
def test_every_iteration_is_the_authors(case: tuple[str, str]) -> None:
    expected = load_file(GOLDEN / f"{case[0]}.safetensors")[case[1]]
    rtol = 1e-7 if case[0] == "byol" else 1e-12
    torch.testing.assert_close(values(*BY_ITERATION[case]), expected, rtol=rtol, atol=1e-15)


BY_EPOCH = {
    "mocov1_step": (Schedule(base=0.03, shape="step", milestones=(120, 160)), 200),
    "mocov2_cos": (Schedule(base=0.03, per_epoch=True), 200),
    "simsiam_encoder_predictor": (Schedule(base=0.1, per_epoch=True), 100),
}


@pytest.mark.parametrize("per_epoch", [1, 4])
@pytest.mark.parametrize("name", BY_EPOCH)
def test_every_epoch_is_the_authors_and_still_within(name: str, per_epoch: int) -> None:
    schedule, epochs = BY_EPOCH[name]
    expected = load_file(GOLDEN / "schedules_misc.safetensors")[name]
    if expected.ndim == 2:
        assert torch.equal(expected[:, 1], torch.full_like(expected[:, 1], schedule.base)), "the fixed predictor's"
        expected = expected[:, 0]
    torch.testing.assert_close(
        values(schedule, epochs, per_epoch), expected.repeat_interleave(per_epoch), rtol=1e-12, atol=1e-15
    )


def test_the_teachers_temperature_moves_with_the_epoch() -> None:
    expected = load_file(GOLDEN / "dino_schedules.safetensors")["teacher_temp"]
    schedule = Schedule(base=0.07, shape="constant", warmup_from=0.04, warmup_epochs=3, per_epoch=True)
    torch.testing.assert_close(values(schedule, 6, 5), expected.repeat_interleave(5), rtol=1e-12, atol=0)


def test_a_step_schedule_falls_at_its_milestones() -> None:
    schedule = Schedule(base=1.0, shape="step", milestones=(1, 2.5), factor=0.5)
    assert values(schedule, 4, 2).tolist() == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_a_run_that_goes_on_past_its_end_keeps_the_end() -> None:
    assert cosine(1.0, 0.25).at(Step(12, 10, 5)) == 0.25


def test_a_plain_number_is_a_constant() -> None:
    class Params(BaseModel):
        momentum: Schedule = cosine(0.9, 1.0)

    params = Params.model_validate_json('{"momentum": 0.5}', strict=True)
    assert params.momentum == constant(0.5)
    assert values(params.momentum, 2, 3).unique().tolist() == [0.5]
    assert Params.model_validate_json(params.model_dump_json(), strict=True) == params


@pytest.mark.parametrize(
    ("data", "good"),
    [
        (0.5, True),
        (1.5, False),
        ({"base": 0.5, "end": 1.5}, False),
        ({"base": 0.5, "end": 1.5, "shape": "constant"}, True),  # never reached
        ({"base": 0.5, "warmup_from": -1.0}, True),  # no warm-up
        ({"base": 0.5, "warmup_from": -1.0, "warmup_epochs": 2}, False),
    ],
)
def test_bounds_hold_for_every_value_that_is_taken(data: object, good: bool) -> None:
    class Params(BaseModel):
        share: Annotated[Schedule, within(0, 1)]

    if good:
        Params.model_validate({"share": data})
    else:
        with pytest.raises(ValidationError, match="is not between 0 and 1"):
            Params.model_validate({"share": data})
