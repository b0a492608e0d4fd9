"""What a view is: complete descriptions, one per view, from a method's recipe, a crop plan and the spec's overrides."""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..spec.crops import CropPlan, Crops, parse_crops
from ..spec.schema import ViewsSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Operation = Literal["flip", "jitter", "grayscale", "blur", "solarize"]


Probability = Annotated[float, Field(ge=0, le=1)]


class ViewSpec(BaseModel):
    """One view, complete: a random resized crop to ``size`` px, then ``order`` of photometric operations.

    ``scale`` is the range of the crop's share of the area and ``ratio`` that of width / height; ``jitter`` holds the
    ranges of brightness, contrast, saturation and hue and ``jitter_p`` the probability of all of them; ``blur_sigma``
    is in pixels, ``solarize_threshold`` a grey level of 0 … 255. ``blur_kernel`` names whose blur it is: "pillow" is
    PIL's GaussianBlur, as most authors' code has it; "gaussian" a true Gaussian cut at a twentieth of the size each way
    (google-research/simclr, deepmind byol). ``colour`` says how jitter and greying are done: "exact", or "matrix", all
    in one matrix an image, which is faster and approximate (``colour.colour_matrix``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    size: int = Field(224, ge=1)
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    flip_p: Probability = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    jitter_p: Probability = 0.8
    grayscale_p: Probability = 0.2
    blur_p: Probability = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_kernel: Literal["pillow", "gaussian"] = "pillow"
    solarize_p: Probability = 0.0
    solarize_threshold: int = Field(128, ge=0, le=256)
    colour: Literal["exact", "matrix"] = "exact"
    order: tuple[Operation, ...] = ("flip", "jitter", "grayscale", "blur", "solarize")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale {self.scale} is not a range within (0, 1]")
        for name, (low, high) in (("ratio", self.ratio), ("blur_sigma", self.blur_sigma)):
            if not 0 < low <= high:
                raise ValueError(f"{name} {(low, high)} is not a range of positive numbers")
        if min(self.jitter) < 0 or self.jitter[3] > 0.5:
            raise ValueError(f"jitter {self.jitter}: ranges are not negative, and hue's is at most 0.5, half a turn")
        if len(set(self.order)) < len(self.order):
            raise ValueError(f"order {self.order} names an operation twice")
        return self


class ViewRecipe(NamedTuple):
    """A method's views: ``globals`` in turn (two where the paper is asymmetric), ``local`` for the small crops.

    ``crops`` is the paper's crop plan; ``mean`` and ``std`` normalise pixels in [0, 1].
    """

    crops: str
    globals: tuple[ViewSpec, ...]
    local: ViewSpec
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


class ViewPlan(NamedTuple):
    """The complete views of a run, globals first."""

    globals: tuple[ViewSpec, ...]
    locals: tuple[ViewSpec, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def all(self) -> tuple[ViewSpec, ...]:
        return self.globals + self.locals

    @property
    def resolution(self) -> int:
        """Return the shorter side in px that an image needs so that no crop is enlarged."""
        return math.ceil(max(view.size / math.sqrt(view.scale[0] * min(view.ratio[0], 1)) for view in self.all))


def plan_views(recipe: ViewRecipe, spec: ViewsSpec) -> ViewPlan:
    """Return the views that ``spec`` asks for, with the recipe's values where it asks for none."""
    plan: CropPlan = parse_crops(spec.multi_crop or recipe.crops)
    changes: dict[str, object] = {
        "flip_p": spec.flip,
        "jitter_p": spec.jitter,
        "grayscale_p": spec.grayscale,
        "blur_p": spec.blur,
        "solarize_p": spec.solarize,
        "interpolation": spec.interpolation,
        "colour": spec.colour,
    }
    overrides = {key: value for key, value in changes.items() if value is not None}

    def complete(view: ViewSpec, crops: Crops, scale: tuple[float, float] | None) -> ViewSpec:
        jitter = tuple(x * spec.jitter_strength for x in view.jitter)
        hue = min(jitter[3], 0.5) if spec.hue is None else spec.hue
        return view.model_copy(
            update={
                "size": crops.size,
                "scale": crops.scale or scale or view.scale,
                "jitter": (*jitter[:3], hue),
                **overrides,
            }
        )

    kinds = recipe.globals
    large = tuple(complete(kinds[i % len(kinds)], plan.globals, spec.scale) for i in range(plan.globals.count))
    small: tuple[ViewSpec, ...] = ()
    if plan.locals is not None:
        small = tuple(complete(recipe.local, plan.locals, spec.local_scale) for _ in range(plan.locals.count))
    return ViewPlan(large, small, recipe.mean, recipe.std)
