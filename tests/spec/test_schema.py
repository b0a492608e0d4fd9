"""The run spec: what it refuses and in which words, its limits, and that its YAML reads back as itself."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sslctl.errors import Exit, SpecError
from sslctl.spec.parsing import check_spec, merge, parse_yaml, problems
from sslctl.spec.schema import SCHEMA, Data, Spec

LEAST: Data = {"data": {"path": "photos"}, "method": {"name": "swav"}}


def wrong(path: str, value: Any) -> list[str]:
    """What is said of the least spec with ``value`` at ``path``."""
    data: Any = value
    for key in reversed(path.split(".")):
        data = {key: data}
    return problems(Spec, merge(LEAST, data))


def test_the_least_spec_is_enough_and_the_rest_has_defaults() -> None:
    spec = check_spec(LEAST)
    assert (spec.data.path, spec.method.name, spec.schema_version) == ("photos", "swav", SCHEMA)
    assert (spec.run.batch_size, spec.run.seed, spec.optim.betas) == (256, 0, (0.9, 0.999))


def test_a_spec_cannot_be_changed() -> None:
    spec = check_spec(LEAST)
    with pytest.raises(ValidationError):
        spec.run.seed = 1
    with pytest.raises(ValidationError):
        spec.data = spec.data


def test_every_error_is_told_at_once() -> None:
    data = {
        "data": {"val_fraction": 2, "dowload": True},
        "views": {"multi_crop": "2y160", "flip": -1},
        "method": {},
        "optim": {"name": "adam", "lr": "fast"},
        "run": {"epocs": 3, "batch_size": 1.5},
        "rnu": {},
    }
    with pytest.raises(SpecError) as caught:
        check_spec(data)
    assert caught.value.exit_code == Exit.USAGE
    lines = caught.value.message.splitlines()
    assert sorted(line.split(":")[0] for line in lines) == sorted(
        """data.path data.val_fraction data.dowload views.multi_crop views.flip method.name optim.name optim.lr
        run.epocs run.batch_size rnu""".split()
    )


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("run.epocs", 3, "run.epocs: no such key — did you mean 'epochs'?"),
        ("optim.weight_decy", 0, "optim.weight_decy: no such key — did you mean 'weight_decay'?"),
        ("rnu", {}, "rnu: no such key — did you mean 'run'?"),
        ("schema_version", 1, "schema_version: no such key — did you mean 'schema'?"),
        ("run.xyz", 3, "run.xyz: no such key; known: out, epochs, steps,"),
        ("optim.name", "adam", "optim.name: 'adam' is not one of adamw, sgd, lars, larc — did you mean 'adamw'?"),
        ("run.precision", "half", "run.precision: 'half' is not one of auto, fp32, bf16, fp16"),
        ("run.precision", 16, "run.precision: 16 is not one of auto, fp32, bf16, fp16"),
        ("views.multi_crop", "2y160", "views.multi_crop: '2y160' — '2y160' is not COUNTxSIZE"),
        ("schema", 99, "schema: 99 — newer than 1, the newest that this sslctl reads; pip install -U sslctl"),
        ("schema", 0, "schema: 0 must be at least 1"),
        ("data.path", 2024, "data.path: 2024 is not text; put it in quotes"),
        ("views", None, "views: null is not a section"),
        ("method", "swav", "method: 'swav' is not a section"),
        ("optim.betas", 0.9, "optim.betas: 0.9 is not a list"),
        ("optim.betas", [0.9], "optim.betas.1: missing"),
        ("optim.betas", [0.9, 0.99, 0.999], "optim.betas: [0.9, 0.99, 0.999] has more than 2 values"),
    ],
)
def test_says_what_is_wrong_and_what_was_meant(path: str, value: Any, said: str) -> None:
    (line,) = wrong(path, value)
    assert line.startswith(said)


@pytest.mark.parametrize("value", [True, False, "1", "yes", "1e-3", None, [1], {"a": 1}, ".inf"])
@pytest.mark.parametrize("path", ["run.batch_size", "run.seed", "optim.lr", "optim.warmup_epochs"])
def test_words_and_truths_are_no_numbers(path: str, value: Any) -> None:
    (line,) = wrong(path, value)
    assert line.startswith(f"{path}: ")
    assert "number" in line


@pytest.mark.parametrize("value", [0, 1, 0.0, "no", "yes", "true", "on", None, []])
@pytest.mark.parametrize("path", ["data.download", "optim.nesterov", "run.fail_on_collapse"])
def test_only_true_and_false_are_truths(path: str, value: Any) -> None:
    (line,) = wrong(path, value)
    assert "is neither true nor false" in line


def test_whole_numbers_are_not_cut_and_numbers_may_be_whole() -> None:
    for value in (1.5, 256.0):
        assert wrong("run.batch_size", value) == [f"run.batch_size: {value} is not a whole number"]
    assert check_spec(merge(LEAST, {"optim": {"lr": 1}})).optim.lr == 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
@pytest.mark.parametrize("path", ["optim.lr", "run.epochs", "run.max_time", "data.val_fraction"])
def test_only_finite_numbers(path: str, value: Any) -> None:
    (line,) = wrong(path, value)
    assert line.startswith(f"{path}: ")
    assert len(line) < 120


@pytest.mark.parametrize(
    ("path", "bad", "good"),
    [
        ("optim.lr", [0, -1, 1001], [1e-9, 1000]),
        ("optim.momentum", [-0.1, 1], [0, 0.996]),
        ("optim.betas", [[0.9, 1], [-0.1, 0.9]], [[0, 0.5]]),
        ("optim.milestones", [[-1]], [[], [120, 160.5]]),
        ("optim.accumulate", [0, -1], [1]),
        ("run.epochs", [0, -1, 1e7], [0.5, 800]),
        ("run.steps", [0, -3], [1]),
        ("run.batch_size", [0, 1, -256, 1 << 21], [2]),
        ("run.seed", [-1, 2**31], [2**31 - 1]),
        ("run.keep", [0], [1]),
        ("data.val_fraction", [0, 1], [0.5]),
        ("data.workers", [-1, 513], [0]),
        ("views.jitter_strength", [-0.1, 2.1], [0, 2]),
        ("views.hue", [-0.1, 0.51], [0, 0.5]),
        ("views.scale", [[0, 1], [0.5, 0.4], [0.5, 1.1]], [[0.5, 1], [0.3, 0.3]]),
        ("backbone.drop_path", [-0.1, 1], [0]),
    ],
)
def test_limits(path: str, bad: list[Any], good: list[Any]) -> None:
    for value in bad:
        assert wrong(path, value), value
    for value in good:
        assert not wrong(path, value), value


def test_epochs_and_steps_exclude_each_other() -> None:
    assert wrong("run", {"epochs": 1, "steps": 2}) == [
        "run: epochs and steps are both given; one of them says how long the run is"
    ]


def test_a_newer_schema_is_said_first() -> None:
    lines = problems(Spec, merge(LEAST, {"schema": 2, "future": {"x": 1}}))
    assert lines[0].startswith("schema: 2 — newer than 1")


def test_a_method_keeps_its_own_keys_for_the_method_to_judge() -> None:
    spec = check_spec(merge(LEAST, {"method": {"temperature": 0.1, "name": "dino"}}))
    assert spec.method_params() == {"temperature": 0.1}


words = st.text(max_size=12) | st.sampled_from(
    ["1e5", "1E5", "08", "010", ".5", "5.", "+1", "-0", "1_0", "0x1F", "0o7", "12:30", "2001-01-01", "no", "Yes", "on"]
    + [
        "~",
        "null",
        "",
        " ",
        "true",
        ".inf",
        ".nan",
        "=",
        "<<",
        "- a",
        "a: b",
        "#",
        "&a",
        "*a",
        "!a",
        "|",
        ">",
        "%",
        "@",
    ]
    + [
        "\ufeff",
        "\u2028",
        "\x85",
        "\t",
        "a\nb",
        "'",
        '"',
        "\\",
        "é",
        "😀",
        "\x1b[31m",
        "1.e",
        "-",
        ".",
        "e",
        "1e",
        "+.e1",
    ]
)
finite = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    words | finite | st.integers(-(10**20), 10**20) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
specs = st.fixed_dictionaries(
    {
        "data": st.fixed_dictionaries(
            {"path": words}, optional={"val": words | st.none(), "bad_limit": st.floats(0, 1)}
        ),
        "method": st.dictionaries(words, plain, max_size=3).flatmap(
            lambda extra: words.map(lambda name: {**extra, "name": name})
        ),
    },
    optional={
        "backbone": st.fixed_dictionaries({"arch": words, "args": st.dictionaries(words, plain, max_size=3)}),
        "optim": st.fixed_dictionaries(
            {
                "lr": st.floats(0, 1000, exclude_min=True),
                "milestones": st.lists(st.floats(0, 1e308), max_size=3),
                "nesterov": st.booleans(),
            }
        ),
        "run": st.fixed_dictionaries(
            {"out": words, "seed": st.integers(0, 2**31 - 1), "max_time": st.floats(1e-300, 1e9)}
        ),
        "views": st.just({"multi_crop": "2x160@0.00001-1+4x96"}),
    },
)


@given(specs)
def test_its_yaml_reads_back_as_itself(data: Data) -> None:
    spec = check_spec(data)
    text = spec.to_yaml()
    again = check_spec(parse_yaml(text, "spec.yaml"))
    assert again == spec
    assert again.to_yaml() == text


@pytest.mark.parametrize("path", ["1e5", "08", "no", "12:30", "~", "2001-01-01", "0x1F", "1_000", "nan", ".inf"])
def test_words_that_look_like_something_else_stay_words_for_every_reader(path: str) -> None:
    text = check_spec({"data": {"path": path}, "method": {"name": "swav"}}).to_yaml()
    assert yaml.safe_load(text)["data"]["path"] == path
    assert parse_yaml(text, "spec.yaml")["data"]["path"] == path
