"""Values that change during training, as pure functions of the step: nothing here has state."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


@dataclass(frozen=True)
class Step:
    """Where training is: ``index`` of ``total`` optimizer steps, ``per_epoch`` to an epoch, in the run of ``seed``."""

    index: int
    total: int
    per_epoch: int
    seed: int = 0

    @property
    def epoch(self) -> int:
        return self.index // self.per_epoch

    @property
    def epochs_done(self) -> float:
        """Epochs when this step is done, with their fraction, as logs have them."""
        return round((self.index + 1) / self.per_epoch, 4)

    @property
    def next(self) -> Step:
        return replace(self, index=self.index + 1)


class Schedule(BaseModel):
    """Warm-up to ``base``, then ``shape`` towards ``end``.

    ``warmup_reaches`` says whether the last warm-up step has the base value (SwAV, DINO: ``numpy.linspace``) or the
    first step after it (SimCLR, MoCo v3). ``end`` is approached, not reached, as in the authors' codes: the last step
    is one short of it. ``per_epoch`` holds the value still within an epoch (MoCo v2, SimSiam, DINO's temperature).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    base: float
    end: float = 0.0
    shape: Literal["cosine", "linear", "constant", "step"] = "cosine"
    warmup_from: float = 0.0
    warmup_epochs: float = Field(0.0, ge=0)
    warmup_reaches: bool = True
    per_epoch: bool = False
    milestones: tuple[float, ...] = ()
    factor: float = 0.1

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, data: Any) -> Any:
        """A plain number is a constant, so that ``--set method.momentum=0.99`` works."""
        if isinstance(data, int | float) and not isinstance(data, bool):
            return {"base": data, "end": data, "shape": "constant"}
        if isinstance(data, dict) and isinstance(data.get("milestones"), list):  # behind this, strictness refuses lists
            return data | {"milestones": tuple(data["milestones"])}
        if not isinstance(data, dict | Schedule):
            raise ValueError("neither a number nor a schedule, such as {base: 0.996, end: 1}")
        return data

    def at(self, step: Step) -> float:
        index, total, unit = (
            (step.epoch, max(1, round(step.total / step.per_epoch)), 1.0)
            if self.per_epoch
            else (step.index, step.total, float(step.per_epoch))
        )
        warmup = round(self.warmup_epochs * unit)
        if index < warmup:
            share = index / max(1, warmup - 1) if self.warmup_reaches else index / warmup
            return self.warmup_from + (self.base - self.warmup_from) * share
        if self.shape == "constant":
            return self.base
        if self.shape == "step":
            return self.base * self.factor ** sum(index >= m * unit for m in self.milestones)
        t = min(1.0, (index - warmup) / max(1, total - warmup))
        left = 1 - t if self.shape == "linear" else 0.5 * (1 + math.cos(math.pi * t))
        return self.end + (self.base - self.end) * left


def constant(value: float) -> Schedule:
    return Schedule(base=value, end=value, shape="constant")


def cosine(base: float, end: float) -> Schedule:
    return Schedule(base=base, end=end)


def within(low: float, high: float) -> AfterValidator:
    """A bound for ``Annotated[Schedule, within(low, high)]``: every value that it takes lies in [low, high]."""

    def check(schedule: Schedule) -> Schedule:
        values = {"base": schedule.base}
        if schedule.shape in ("cosine", "linear"):
            values["end"] = schedule.end
        if schedule.warmup_epochs:
            values["warmup_from"] = schedule.warmup_from
        wrong = [f"{name} {value:g}" for name, value in values.items() if not low <= value <= high]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} is not between {low:g} and {high:g}")
        return schedule

    return AfterValidator(check)
