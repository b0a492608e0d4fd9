"""From a paper's recipe, the crop grammar and the spec's overrides to complete views."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from sslctl.spec.schema import ViewsSpec
from sslctl.views.geometric import SLOTS, crop_boxes
from sslctl.views.keyed import uniforms
from sslctl.views.recipe import IMAGENET_MEAN, IMAGENET_STD, ViewRecipe, ViewSpec, plan_views

# As published: see the table of augmentations in each paper and the authors' code.
SIMCLR = ViewRecipe(
    "2x224",
    (ViewSpec(interpolation="bicubic", jitter=(0.8, 0.8, 0.8, 0.2), blur_kernel="gaussian"),),
    ViewSpec(size=96, scale=(0.05, 0.14), interpolation="bicubic", jitter=(0.8, 0.8, 0.8, 0.2), blur_kernel="gaussian"),
    mean=(0, 0, 0),
    std=(1, 1, 1),
)
SWAV = ViewRecipe(
    "2x224+6x96",
    (ViewSpec(scale=(0.14, 1.0), jitter=(0.8, 0.8, 0.8, 0.2)),),
    ViewSpec(size=96, scale=(0.05, 0.14), jitter=(0.8, 0.8, 0.8, 0.2)),
    std=(0.228, 0.224, 0.225),  # the authors' slip: 0.228, not 0.229
)
DINO = ViewRecipe(
    "2x224+8x96",
    (
        ViewSpec(scale=(0.4, 1.0), interpolation="bicubic", blur_p=1.0),
        ViewSpec(scale=(0.4, 1.0), interpolation="bicubic", blur_p=0.1, solarize_p=0.2, solarize_threshold=128),
    ),
    ViewSpec(size=96, scale=(0.05, 0.4), interpolation="bicubic", blur_p=0.5),
)
MOCO_V1 = ViewRecipe(
    "2x224",
    (ViewSpec(scale=(0.2, 1), jitter=(0.4,) * 4, jitter_p=1, blur_p=0, order=("grayscale", "jitter", "flip")),),
    ViewSpec(size=96, scale=(0.05, 0.2)),
)


def test_a_recipe_alone_is_its_paper() -> None:
    plan = plan_views(DINO, ViewsSpec())
    assert len(plan.globals) == 2 and len(plan.locals) == 8
    assert [v.blur_p for v in plan.all] == [1.0, 0.1] + [0.5] * 8
    assert [v.solarize_p for v in plan.all] == [0, 0.2] + [0] * 8
    assert [v.size for v in plan.all] == [224, 224] + [96] * 8
    assert plan.globals == DINO.globals and set(plan.locals) == {DINO.local}
    assert (plan.mean, plan.std) == (IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize("recipe", [SIMCLR, SWAV, DINO, MOCO_V1])
def test_recipes_of_the_papers_can_be_written(recipe: ViewRecipe) -> None:
    plan = plan_views(recipe, ViewsSpec())
    assert plan.globals[0] == recipe.globals[0] and plan.std == recipe.std
    for view in plan.all:
        assert ViewSpec.model_validate_json(view.model_dump_json()) == view


def test_asymmetric_globals_alternate() -> None:
    plan = plan_views(DINO, ViewsSpec(multi_crop="5x64"))
    assert [v.blur_p for v in plan.globals] == [1.0, 0.1, 1.0, 0.1, 1.0] and plan.locals == ()


def test_grammar_sets_sizes_and_scales() -> None:
    plan = plan_views(SWAV, ViewsSpec(multi_crop="2x160@0.3-0.9+4x96@0.02-0.2"))
    assert [(v.size, v.scale) for v in plan.all] == [(160, (0.3, 0.9))] * 2 + [(96, (0.02, 0.2))] * 4
    kept = plan_views(SWAV, ViewsSpec(multi_crop="2x160+4x96"))
    assert [(v.size, v.scale) for v in kept.all] == [(160, (0.14, 1.0))] * 2 + [(96, (0.05, 0.14))] * 4


def test_the_spec_sets_scales_where_the_grammar_says_none() -> None:
    spec = ViewsSpec(scale=(0.5, 0.9), local_scale=(0.2, 0.4))
    plan = plan_views(SWAV, spec.model_copy(update={"multi_crop": "2x32+2x16"}))
    assert [(v.size, v.scale) for v in plan.all] == [(32, (0.5, 0.9))] * 2 + [(16, (0.2, 0.4))] * 2
    said = plan_views(SWAV, spec.model_copy(update={"multi_crop": "2x32@0.3-1+2x16"}))
    assert [v.scale for v in said.all] == [(0.3, 1.0)] * 2 + [(0.2, 0.4)] * 2
    assert plan_views(SWAV, ViewsSpec(scale=(0.5, 0.9))).locals == plan_views(SWAV, ViewsSpec()).locals


def test_overrides_reach_every_view_and_leave_the_rest() -> None:
    spec = ViewsSpec(flip=0, blur=0.3, jitter=0.7, grayscale=1, solarize=0.1, interpolation="bilinear")
    for before, after in zip(plan_views(DINO, ViewsSpec()).all, plan_views(DINO, spec).all, strict=True):
        changed = {k for k, v in after.model_dump().items() if v != before.model_dump()[k]}
        assert changed <= {"flip_p", "blur_p", "jitter_p", "grayscale_p", "solarize_p", "interpolation"}
        assert (after.flip_p, after.blur_p, after.jitter_p) == (0, 0.3, 0.7)
        assert (after.grayscale_p, after.solarize_p, after.interpolation) == (1, 0.1, "bilinear")


def test_a_probability_of_zero_is_an_override_too() -> None:
    assert all(v.blur_p == 0 for v in plan_views(DINO, ViewsSpec(blur=0)).all)


def test_jitter_strength_scales_ranges_and_hue_stops_at_half_a_turn() -> None:
    plan = plan_views(MOCO_V1, ViewsSpec(jitter_strength=2))
    assert plan.globals[0].jitter == (0.8, 0.8, 0.8, 0.5)
    half = plan_views(SWAV, ViewsSpec(jitter_strength=0.5)).globals[0].jitter
    assert half == pytest.approx((0.4, 0.4, 0.4, 0.1))


def test_hue_is_a_range_of_its_own_whatever_the_strength() -> None:
    plan = plan_views(SWAV, ViewsSpec(jitter_strength=0.5, hue=0.4))
    assert all(view.jitter == pytest.approx((0.4, 0.4, 0.4, 0.4)) for view in plan.all)
    assert plan_views(SWAV, ViewsSpec(hue=0)).globals[0].jitter == (0.8, 0.8, 0.8, 0)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"scale": (0.5, 0.1)}, "scale"),
        ({"scale": (0, 1)}, "scale"),
        ({"scale": (0.5, 1.1)}, "scale"),
        ({"ratio": (0, 1)}, "ratio"),
        ({"blur_sigma": (2, 1)}, "blur_sigma"),
        ({"jitter": (0.4, 0.4, 0.4, 0.6)}, "half a turn"),
        ({"jitter": (-0.1, 0, 0, 0)}, "jitter"),
        ({"order": ("flip", "flip")}, "twice"),
        ({"order": ("crop",)}, "order"),
        ({"flip_p": 1.5}, "flip_p"),
        ({"size": 0}, "size"),
        ({"solarise_p": 0.1}, "solarise_p"),
    ],
)
def test_impossible_views_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ViewSpec(**wrong)


def test_the_spec_says_how_colours_are_jittered() -> None:
    recipe = ViewRecipe("2x32+2x16", (ViewSpec(),), ViewSpec())
    assert {view.colour for view in plan_views(recipe, ViewsSpec()).all} == {"exact"}
    assert {view.colour for view in plan_views(recipe, ViewsSpec(colour="matrix")).all} == {"matrix"}


def test_the_resolution_that_views_need_enlarges_no_crop() -> None:
    recipe = ViewRecipe("2x32", (ViewSpec(),), ViewSpec())
    plan = plan_views(recipe, ViewsSpec(multi_crop="2x160@0.14-1+4x96@0.05-0.14"))
    for shape in ((plan.resolution, plan.resolution), (plan.resolution, 3 * plan.resolution)):
        for view in plan.all:
            boxes = crop_boxes(uniforms(0, 0, np.arange(4000), 0, SLOTS), *shape, view.scale, view.ratio)
            assert boxes[:, 2:].min() >= view.size - 1  # sides are rounded
    square = crop_boxes(uniforms(0, 0, np.arange(4000), 0, SLOTS), 430, 430, (0.05, 0.14))
    assert square[:, 2:].min() < 96
