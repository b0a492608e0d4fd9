"""What a checkpoint says reads back as it was written, and nothing of a wrong type is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sslctl import __version__
from sslctl.errors import CheckpointError
from sslctl.runs.meta import Meta, parse_meta

from .small_run import meta

PATH = Path("some.safetensors")


def changed(**values: Any) -> str:
    return json.dumps({**json.loads(meta(encoder="method.student.backbone.").to_json()), **values})


def test_it_reads_back_as_it_was_written() -> None:
    before = meta(encoder="method.student.backbone.", probe={"knn": 0.5}, classes=["a", "b"])
    assert parse_meta(PATH, before.to_json()) == before


def test_a_change_leaves_the_original_and_names_todays_versions() -> None:
    before = meta()
    after = before.but(step=9)
    assert (before.step, after.step) == (2, 9)
    assert after.versions == {"sslctl": __version__, "torch": torch.__version__}


def test_keys_of_later_versions_are_kept() -> None:
    again = parse_meta(PATH, changed(weather="sunny"))
    assert json.loads(again.to_json())["weather"] == "sunny"


def test_optional_keys_may_be_absent() -> None:
    content = json.loads(changed())
    for key in ("versions", "method"):
        del content[key]
    found = parse_meta(PATH, json.dumps(content))
    assert found.versions == {} and found.method is None


@pytest.mark.parametrize("text", [None, "", "null", "[]", "{}", "no json", "[" * 100_000, '{"schema": 1}'])
def test_headers_of_others_are_refused(text: str | None) -> None:
    with pytest.raises(CheckpointError, match=r"some\.safetensors: a safetensors file, but not a checkpoint"):
        parse_meta(PATH, text)


def test_a_newer_schema_asks_for_an_upgrade() -> None:
    with pytest.raises(CheckpointError, match="schema 99") as refused:
        parse_meta(PATH, changed(schema=99))
    assert "pip install -U sslctl" in refused.value.hint


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"step": "2"}, "step"),
        ({"step": -1}, "step"),
        ({"image": {"size": 0, "mean": [0, 0, 0], "std": [1, 1, 1]}}, "image.size"),
        ({"image": {"size": 32, "mean": [0, 0], "std": [1, 1, 1]}}, "image.mean"),
        ({"data": {"name": 3}}, "data.name"),
        ({"spec": []}, "spec"),
        ({"classes": "abc"}, "classes"),
    ],
)
def test_a_wrong_value_is_named_by_its_place(values: dict[str, Any], where: str) -> None:
    with pytest.raises(CheckpointError, match=rf"damaged: {where}"):
        parse_meta(PATH, changed(**values))


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"image\.mean"):
        parse_meta(PATH, changed(image={"size": 32, "mean": [float("nan"), 0, 0], "std": [1, 1, 1]}))


def test_the_spec_is_checked_where_it_is_used() -> None:
    assert meta().checked_spec(PATH).backbone.arch == "resnet18"
    broken = Meta.model_validate({**json.loads(changed()), "spec": {"data": {"path": "x"}, "optim": {"lr": "fast"}}})
    with pytest.raises(CheckpointError, match=r"(?s)some\.safetensors: its spec cannot be read: .*optim\.lr"):
        broken.checked_spec(PATH)


def test_images_come_as_the_encoder_was_trained() -> None:
    transform = meta().image.transform()
    assert (transform.size, transform.mean, transform.std) == (32, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    assert meta().image.transform(96).size == 96
