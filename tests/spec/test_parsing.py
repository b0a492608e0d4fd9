"""How a spec is read: YAML's traps, hostile files, --set words, layers."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sslctl.errors import Exit, SpecError
from sslctl.spec.parsing import (
    MAX_BYTES,
    MAX_DEPTH,
    check_spec,
    merge,
    parse_set,
    parse_yaml,
    problems,
    read_spec_file,
    refuse,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # As YAML 1.2 has it. In 1.1 these were a word, false, 8, a count of seconds, a date, true.
        ("1e-3", 0.001),
        ("no", "no"),
        ("010", 10),
        ("12:30:00", "12:30:00"),
        ("2001-01-01", "2001-01-01"),
        ("on", "on"),
        ("3E4", 30000.0),
        ("1.5e+2", 150.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-7", -7),
        ("+7", 7),
        ("-0.0", -0.0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'010'", "010"),
        ('"1e-3"', "1e-3"),
        ("1_000", "1_000"),
        ("0x1F", "0x1F"),
        ("1e", "1e"),
        ("-", "-"),
        (".", "."),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("1.2.3", "1.2.3"),
        ("2x160+4x96", "2x160+4x96"),
        ("[1, [0.9, b], {c: d}]", [1, [0.9, "b"], {"c": "d"}]),
        ("<<", "<<"),
        ("=", "="),
    ],
)
def test_plain_values(text: str, value: Any) -> None:
    got = parse_yaml(f"a: {text}" if text != "-" else "a: '-'", "x.yaml")["a"]
    assert (type(got), got) == (type(value), value)


def test_a_merge_key_is_a_key_like_any_other() -> None:
    assert parse_yaml("<<: {a: 1}\nb: 2", "x.yaml") == {"<<": {"a": 1}, "b": 2}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "x.yaml:3:1: key 'a' stands twice"),
        ("a:\n  b: 1\n  'b': 2", "x.yaml:3:3: key 'b' stands twice"),
        ("{a: 1, a: 2}", "x.yaml:1:8: key 'a' stands twice"),
        ("1: 2", "x.yaml:1:1: key 1 is not a word"),
        ("true: 2", "x.yaml:1:1: key true is not a word"),
        ("null: 2", "x.yaml:1:1: key null is not a word"),
        ("? [a]\n: b", 'x.yaml:1:3: key ["a"] is not a word'),
        ("? {a: b}\n: c", 'x.yaml:1:3: key {"a": "b"} is not a word'),
        ("a: &x [1]\nb: *x", "x.yaml:2:4: aliases are not allowed"),
        ("a: !!python/object/apply:os.system ['true']", "x.yaml:1:4: tags such as tag:yaml.org,2002:python/object"),
        ("a: !!python/name:os.system", "x.yaml:1:4: tags such as"),
        ("a: !mine {b: 1}", "x.yaml:1:4: tags such as !mine are not allowed"),
        ("a: !!bool maybe", "x.yaml:1:4: tags such as"),
        ("a: !!timestamp 2001-01-01", "x.yaml:1:4: tags such as"),
        ("a: !!binary aGk=", "x.yaml:1:4: tags such as"),
        ("a: !!set {x}", "x.yaml:1:4: tags such as"),
        ("? !!str a\n: b", "x.yaml:1:3: tags such as"),
        ("a:\n\tb: 1", "x.yaml:2:1: found character '\\t' that cannot start any token"),
        ("a: [1, 2", "x.yaml:1:9: expected ',' or ']'"),
        ("a: 'b", "x.yaml:1:6: found unexpected end of stream"),
        ("a: b: c", "x.yaml:1:5: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2", "x.yaml:2:1: but found another document"),
        ("a: 1e999", "x.yaml:1:4: 1e999 is too large a number"),
        ("a: -1e999", "x.yaml:1:4: -1e999 is too large a number"),
        ("a: " + "9" * 5000, "x.yaml:1:4: 99999999999999999999 is too large a number"),
        ("a: \0", "x.yaml: holds the character '\\x00' at 3"),
        ("a: \udce9", "x.yaml: holds the character '\\udce9' at 3"),
        ("[" * 10_000, f"x.yaml:1:{MAX_DEPTH + 1}: deeper than {MAX_DEPTH} levels"),
        ("{a: " * 10_000, f"x.yaml:1:{4 * MAX_DEPTH - 2}: deeper"),
        ("- " * 10_000, f"x.yaml:1:{2 * MAX_DEPTH + 1}: deeper"),
        ("a: " + "[" * 10_000 + "]" * 10_000, "x.yaml:1:23: deeper"),
        ("\n".join(" " * i + "a:" for i in range(300)), f"x.yaml:{MAX_DEPTH}:{MAX_DEPTH}: deeper"),
        ("x" * (MAX_BYTES + 1), "x.yaml: too long for a spec, which has at most 128 KiB"),
    ],
    ids=lambda text: text[:24],
)
@pytest.mark.timeout(20)  # milliseconds, where nothing is amiss
def test_refuses_quickly_with_the_place_and_the_reason(text: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_yaml(text, "x.yaml")
    assert caught.value.message.startswith(said)
    assert len(caught.value.message) < 200
    assert caught.value.exit_code == Exit.USAGE


def test_an_alias_bomb_is_refused_at_its_first_alias() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    with pytest.raises(SpecError, match=r"^bomb:2:10: aliases are not allowed"):
        parse_yaml("\n".join(lines), "bomb")


def test_no_code_in_a_spec_is_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for tag in ("python/object/apply:os.mkdir", "python/object/new:os.mkdir", "python/object/apply:pathlib.Path.touch"):
        with pytest.raises(SpecError):
            parse_yaml(f"a: !!{tag} ['{canary}']", "x.yaml")
    assert not canary.exists()


@given(st.text("abe01.:-{}[],&*!#|>'\"%@ \n\t~?<=", max_size=40) | st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        value = parse_yaml(text, "x.yaml")
    except SpecError:
        return
    json.dumps(value, allow_nan=False)  # nothing but plain values came out


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_bytes(content)
    return path


def test_reads_a_file(tmp_path: Path) -> None:
    text = "data: {path: photos}\nmethod: {name: swav}\nviews:\n  # multi_crop: 2x160\nrun: {epochs: 3}\n"
    expected = {"data": {"path": "photos"}, "method": {"name": "swav"}, "run": {"epochs": 3}}
    assert read_spec_file(write(tmp_path, text.encode())) == expected
    assert read_spec_file(write(tmp_path, b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())) == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no sections"),
        (b"# nothing\n", "holds no sections"),
        (b"- data\n- method\n", "holds no sections"),
        (b"swav", "holds no sections"),
        (b"3", "holds no sections"),
        (b"data: \xff\xfe", "not UTF-8 text"),
        ("data: {path: x}".encode("utf-16"), "not UTF-8 text"),
        (b"a: 1\na: 2\n", "key 'a' stands twice"),
    ],
)
def test_refuses_a_file_that_is_no_spec(tmp_path: Path, content: bytes, said: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(SpecError) as caught:
        read_spec_file(path)
    assert caught.value.message.startswith(f"--spec {path}")
    assert said in caught.value.message


def test_refuses_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="No such file"):
        read_spec_file(tmp_path / "missing.yaml")
    with pytest.raises(SpecError, match="Is a directory"):
        read_spec_file(tmp_path)
    unreadable = write(tmp_path, b"data: {path: x}")
    unreadable.chmod(0)
    if not os.access(unreadable, os.R_OK):  # root may read everything
        with pytest.raises(SpecError, match="Permission denied"):
            read_spec_file(unreadable)
    unreadable.chmod(stat.S_IRUSR | stat.S_IWUSR)


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    path = write(tmp_path, b"")
    os.truncate(path, 2 << 30)
    with pytest.raises(SpecError, match="too long for a spec"):
        read_spec_file(path)


@pytest.mark.timeout(20)
def test_a_file_without_a_size_is_refused_too() -> None:
    with pytest.raises(SpecError, match="too long for a spec"):
        read_spec_file(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("word", "data"),
    [
        ("optim.lr=3e-4", {"optim": {"lr": 3e-4}}),
        ("optim.betas=[0.9, 0.95]", {"optim": {"betas": [0.9, 0.95]}}),
        ("optim={lr: 1, name: sgd}", {"optim": {"lr": 1, "name": "sgd"}}),
        ("data.path=a=b", {"data": {"path": "a=b"}}),
        ("data.val=", {"data": {"val": None}}),
        ("data.val=null", {"data": {"val": None}}),
        ("data.download=true", {"data": {"download": True}}),
        ("data.download=yes", {"data": {"download": "yes"}}),
        ("run.out='2024'", {"run": {"out": "2024"}}),
        ("backbone.args.img_size=96", {"backbone": {"args": {"img_size": 96}}}),
        (" run.seed = 3", {"run": {"seed": 3}}),
        ("views.multi_crop=2x224@0.4-1.0+6x96@0.05-0.4", {"views": {"multi_crop": "2x224@0.4-1.0+6x96@0.05-0.4"}}),
    ],
)
def test_set_words(word: str, data: dict[str, Any]) -> None:
    assert parse_set(word) == data


@pytest.mark.parametrize(
    "word",
    ["", "=", "optim.lr", "optim.lr 3", "=3", ".=3", "optim.=3", ".lr=3", "optim..lr=3", ".".join("a" * 50) + "=1"],
)
def test_set_words_of_another_form(word: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_set(word)
    assert caught.value.message.startswith("--set '")
    assert "section.key=value" in caught.value.message
    assert "--set optim.lr=3e-4" in caught.value.hint


@pytest.mark.parametrize("value", ["[1", "{a: 1, a: 2}", "*x", "!!python/name:os.system", "a: b: c", "@x", "1e999"])
def test_set_values_that_are_no_yaml(value: str) -> None:
    with pytest.raises(SpecError, match=r"^--set optim\.lr:1:\d+: "):
        parse_set(f"optim.lr={value}")


def test_later_layers_win_key_by_key() -> None:
    recipe = {"optim": {"name": "lars", "lr": 4.8, "betas": [0.9, 0.99]}, "run": {"epochs": 800}}
    file = {"data": {"path": "photos"}, "optim": {"lr": 0.1}}
    words = parse_set("optim.betas=[0.5, 0.6]")
    assert merge(recipe, file, words) == {
        "optim": {"name": "lars", "lr": 0.1, "betas": [0.5, 0.6]},
        "run": {"epochs": 800},
        "data": {"path": "photos"},
    }
    assert recipe["optim"] == {"name": "lars", "lr": 4.8, "betas": [0.9, 0.99]}, "layers stay as they were"
    assert merge() == {}
    assert merge({"a": {"b": 1}}, {"a": 2}) == {"a": 2}
    assert merge({"a": 2}, {"a": {"b": 1}}) == {"a": {"b": 1}}


nested = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8
)
layers = st.dictionaries(st.sampled_from("abc"), nested, max_size=3)


@given(layers, layers, layers)
def test_merging_is_associative(a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]) -> None:
    assert merge(merge(a, b), c) == merge(a, merge(b, c)) or _changes_kind(a, b, c)


def _changes_kind(*layers: dict[str, Any]) -> bool:
    """A number over a mapping, or the reverse: there the order of merging may be told apart."""
    for key in {key for layer in layers for key in layer}:
        values = [layer[key] for layer in layers if key in layer]
        kinds = {isinstance(value, dict) for value in values}
        if len(kinds) > 1 or (kinds == {True} and _changes_kind(*values)):
            return True
    return False


@given(layers)
def test_merging_nothing_changes_nothing(a: dict[str, Any]) -> None:
    assert merge(a) == merge(a, {}) == merge({}, a) == merge(a, a) == a


def test_names_that_are_not_utf8_are_told() -> None:
    with pytest.raises(SpecError) as caught:
        check_spec({"data": {"path": "caf\udce9"}, "method": {"name": "swav"}})
    assert "caf\\udce9" in caught.value.message
    assert "not UTF-8" in caught.value.message


def test_a_flood_of_errors_is_cut() -> None:
    lines = refuse([f"run.a{i}: no such key" for i in range(10_000)]).message.splitlines()
    assert len(lines) < 30
    assert lines[-1] == "and 9980 more"


def test_a_schedule_is_a_number_or_a_section() -> None:
    from sslctl.schedule import Schedule
    from sslctl.spec.schema import Section

    class Params(Section):
        momentum: Schedule

    assert not problems(Params, {"momentum": 0.99})
    assert not problems(Params, {"momentum": {"base": 0.996, "end": 1, "milestones": [1, 2.5]}})
    for value in ("high", True, None, [1]):
        (line,) = problems(Params, {"momentum": value}, "method")
        assert line.startswith("method.momentum: ")
        assert "neither a number nor a schedule" in line
    assert problems(Params, {"momentum": {"base": "high", "shape": "cos", "edn": 1}}, "method") == [
        "method.momentum.base: 'high' is not a number",
        "method.momentum.shape: 'cos' is not one of cosine, linear, constant, step — did you mean 'cosine'?",
        "method.momentum.edn: no such key — did you mean 'end'?",
    ]
